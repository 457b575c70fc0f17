"""Model archives as the GUI process looks at them: no framework is needed to refuse a wrong one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ptychopinn.bundle import ArchiveKind, Manifest, read_bundle
from ptychopinn.errors import ArchiveError, ResourceError
from ptychopinn.reconstructor import TrainStatus

# Ways in which a training ends before all epochs are done; none of them is a failure.
_ENDINGS = {
    TrainStatus.TIMED_OUT: " in the time that it was given",
    TrainStatus.STOPPED_EARLY: ", until nothing improved",
    TrainStatus.CANCELLED: ", stopped by its user",
}
_LOSSES = "losses"  # in the manifest's extra: [[epoch, loss], ...]


@dataclass(frozen=True)
class LoadedModel:
    """A model held in memory, so that saving it does not depend on the file it came from."""

    name: str  # of the file it came from
    content: bytes  # the archive
    manifest: Manifest  # what it is

    @property
    def losses(self) -> list[tuple[int, float]]:
        """(epoch, loss) pairs of its training; empty where the archive has none."""
        stored = self.manifest.extra.get(_LOSSES)
        found = []
        for pair in stored if isinstance(stored, list) else []:
            match pair:
                case [int() | float() as epoch, int() | float() as loss]:
                    found.append((int(epoch), float(loss)))
        return found

    @property
    def summary(self) -> str:
        """One line for the pane."""
        training = self.manifest.training
        about = (
            f"N = {self.manifest.model.N}, {self.manifest.model.model_type}, written by {self.manifest.writer.backend}"
        )
        if training is not None:
            about += f", {training.epochs} epochs{_ENDINGS.get(training.status, '')}"
        return f"{self.name}: {about}"


def with_losses(manifest: Manifest, losses: list[list[float]]) -> Manifest:
    """A manifest with the history of the training in it."""
    return manifest.model_copy(update={"extra": {**manifest.extra, _LOSSES: losses}})


def load_model(path: Path, model_type: str) -> LoadedModel:
    """Read an archive and check that it is a model of this type, undamaged.

    Raises ArchiveError if it is anything else; says what it is.
    """
    manifest = read_bundle(path).manifest
    if manifest.kind is not ArchiveKind.MODEL:
        raise ArchiveError(f"{path} is a {manifest.kind} of a training, not a model.", "Choose the model of that run.")
    if manifest.model.model_type != model_type:
        raise ArchiveError(
            f"{path} is a model of the type {manifest.model.model_type}; this entry takes {model_type}.",
            f"Choose the algorithm ending in {manifest.model.model_type}, or another file.",
        )
    try:
        return LoadedModel(path.name, path.read_bytes(), manifest)
    except OSError as error:
        raise ResourceError(f"{path} cannot be read: {error}.", "Check the disk.") from error
