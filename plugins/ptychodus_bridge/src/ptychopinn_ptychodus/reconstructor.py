"""One entry of the dropdown: a backend and a model type, which work in a process of their own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ptychodus.api.product import LossValue
from ptychodus.api.reconstruct import (
    ReconstructInput,
    ReconstructOutput,
    TrainableReconstructor,
    TrainOutput,
)

from ptychopinn.atomic import write_bytes
from ptychopinn.config.settings import is_off
from ptychopinn.data.io import write_scan
from ptychopinn.errors import UsageError
from ptychopinn.product import read_product
from ptychopinn_ptychodus.archives import LoadedModel, load_model
from ptychopinn_ptychodus.conversion import in_frame_of_input, output_product, scan_of
from ptychopinn_ptychodus.entry import Entry, scratch_folder
from ptychopinn_ptychodus.run_state import PROGRESS_GOAL, Host, Run
from ptychopinn_ptychodus.settings import EntrySettings
from ptychopinn_ptychodus.supervision import shares_of
from ptychopinn_ptychodus.training_data import find_training_files, nothing_to_train_on

_WORDS = {"pinn": "unsupervised"}  # in the names of entries: what a model type needs to know of the object
_log = logging.getLogger("ptychopinn.ptychodus")


def entry_name(backend: str, model_type: str) -> str:
    """The name of an entry in the dropdown, after the library's: ``supervised-BACKEND``."""
    return f"{_WORDS.get(model_type, model_type)}-{backend}"


class BridgeReconstructor(Entry, TrainableReconstructor):
    """One backend and model type, named as on the command line, as Ptychodus's trainable reconstructor."""

    def __init__(self, backend: str, model_type: str, settings: EntrySettings, host: Host) -> None:
        super().__init__(settings, host)
        self._backend, self._model_type = backend, model_type
        self._model: LoadedModel | None = None
        self._open_scan: ReconstructInput | None = None
        self.trains_on_files = False  # whether the window trains on files of a directory, not on the scan that is open

    @property
    def name(self) -> str:
        """How it learns, and its backend, as the dropdown shows them."""
        return entry_name(self._backend, self._model_type)

    @property
    def older_name(self) -> str:
        """What version 0.1 called it; settings files may have that name."""
        return f"{self._backend}-{self._model_type}"

    @property
    def model_summary(self) -> str:
        """What is loaded, in a line."""
        return "none" if self._model is None else self._model.summary

    def is_model_loaded(self) -> bool:
        """Whether there is a model to infer with."""
        return self._model is not None

    def get_model_file_filter(self) -> str:
        """For the file dialog."""
        return "ptychopinn Models (*.zip)"

    def get_model_file_extension(self) -> str:
        """As batch mode names the model."""
        return ".zip"

    def get_training_data_file_filter(self) -> str:
        """For the file dialog."""
        return "NumPy Zipped Archives (*.npz)"

    def load_model_from_file(self, file_path: Path) -> None:
        """Take a model; raises ArchiveError if it is not one for this entry."""
        self._model = load_model(Path(file_path), self._model_type)
        _log.info("Loaded %s.", self._model.summary)

    def save_model(self, file_path: Path) -> None:
        """Write the loaded model; a name without a suffix gets .zip."""
        if self._model is None:
            raise UsageError("There is no model to save.", "Train one, or load one.")
        target = _with_suffix(Path(file_path), ".zip")
        write_bytes(target, self._model.content)
        _log.info("Saved the model as %s.", target)

    def export_training_data(self, file_path: Path, parameters: ReconstructInput) -> None:
        """Write the scan as NPZ to the contract; a name without a suffix gets .npz."""
        target = _with_suffix(Path(file_path), ".npz")
        write_scan(target, scan_of(parameters, with_object=True))
        _log.info("Exported %d patterns to %s.", len(parameters.diffraction_patterns), target)

    def wants_scan(self, folder: Path, *, in_window: bool) -> bool:
        """Whether the next training wants the scan that is open.

        In the window it does, unless the user asked for the files of the directory. In batch mode the directory is the
        one that was asked for: the scan is wanted if it holds nothing to train on.
        """
        return not self.trains_on_files if in_window else find_training_files(folder) is None

    def training_data(self, folder: Path) -> str:
        """What there is to train on in a directory, for a question to the user.

        Raises
        ------
        DataError
            If there is nothing, or it is not clear what.
        """
        files = find_training_files(folder)
        if files is None:
            raise nothing_to_train_on(folder)
        return str(files.train or f"{files.diffraction} with product.h5")

    def offer_scan(self, parameters: ReconstructInput) -> None:
        """Hand over the open scan for the next training."""
        self._open_scan = parameters

    def train(self, input_path: Path, output_path: Path) -> Iterator[TrainOutput]:
        """Train on what ``input_path`` holds; the model goes to ``output_path``/model.zip and is loaded."""
        offered, self._open_scan = self._open_scan, None
        run, model = Run(self.name, "train"), Path(output_path).absolute() / "model.zip"
        with self._report_run(run), scratch_folder(run) as scratch:
            scan = None
            if offered is not None:
                scan = scratch / "scan.npz"
                write_scan(scan, scan_of(offered, with_object=True))
            values = self.settings.values()
            arguments = {
                "folder": Path(input_path).absolute(),
                "scan": scan,
                "scratch": scratch,
                "output": model,
                "settings": {
                    "backend": self._backend,
                    "preset": self.settings.preset,
                    "model": {**values.get("model", {}), "model_type": self._model_type},
                    "train": values.get("train", {}),
                    "execution": values.get("execution", {}),
                },
            }
            if self._work("ptychopinn_ptychodus.worker:train", arguments, run, scratch, shares_of("train")) is None:
                return
            self._model = load_model(model, self._model_type)
        losses = [LossValue(epoch, value) for epoch, value in self._model.losses]
        yield TrainOutput(training_loss=losses, progress=PROGRESS_GOAL)

    def reconstruct(self, parameters: ReconstructInput) -> Iterator[ReconstructOutput]:
        """Infer with the loaded model; exactly one output, unless it is stopped."""
        run = Run(self.name, "infer", product_item=self._host.take_product_item())
        with self._report_run(run), scratch_folder(run) as scratch:
            if self._model is None:
                raise UsageError(
                    f"{self.name} has no model.",
                    "Train or load one; in batch mode copy the training's model.zip into the input directory.",
                )
            scan, model = scratch / "scan.npz", scratch / "model.zip"
            data = scan_of(parameters, with_object=False)
            write_scan(scan, data)
            model.write_bytes(self._model.content)
            losses = self._model.losses
            values = self.settings.values()
            infer = values.get("infer", {})
            arguments = {
                "model": model,
                "scan": scan,
                "output": scratch / "run",
                "settings": {
                    "backend": self._backend,
                    "preset": self.settings.preset,
                    "infer": infer,
                    "execution": values.get("execution", {}),
                },
            }
            shares = shares_of("infer", left_out="refine" if is_off(infer.get("refine")) else "")
            done = self._work("ptychopinn_ptychodus.worker:infer", arguments, run, scratch, shares)
            if done is None:
                return
            figures = done[0]["figures"]
            words = (
                "%d patches placed, forward residual R = %.4f (the part of the measured amplitudes that object "
                "and probe do not explain), synchronisation %s."
            )
            _log.info(words, *(figures[key] for key in ("patches placed", "forward residual R", "synchronisation")))
            found = read_product(done[0]["files"]["product"])
            product = output_product(parameters, in_frame_of_input(parameters, data, found), losses)
            run.has_product = True
        yield ReconstructOutput(product, PROGRESS_GOAL)

    def _work(
        self, function: str, arguments: Mapping[str, Any], run: Run, scratch: Path, shares: Mapping[str, Any]
    ) -> tuple[Any] | None:
        """Do a job to its end: what it returned, None if it was stopped without a result."""
        with self._job(function, arguments, run, scratch, shares) as job:
            return job.wait()


def _with_suffix(path: Path, suffix: str) -> Path:
    return path if path.suffix else path.with_name(path.name + suffix)
