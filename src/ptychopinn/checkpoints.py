"""Training checkpoints: archives of tensors and JSON, of which the newest and the best are kept.

A checkpoint is a model archive of the kind ``checkpoint`` (`ptychopinn.bundle`); opening one executes nothing.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path

from ptychopinn.bundle import Bundle, Manifest, read_bundle, write_bundle
from ptychopinn.config.train import CheckpointMode
from ptychopinn.errors import ArchiveError
from ptychopinn.typing import AnyArray, StrPath

_log = logging.getLogger(__name__)
_NAME = re.compile(r"epoch-(\d{7})\.ckpt\.zip")
_FIGURE = "checkpoint_figure"


class CheckpointStore:
    """A folder of checkpoints; created with the first one. The ``top_k`` best are kept besides the newest."""

    def __init__(self, folder: StrPath, *, top_k: int, mode: CheckpointMode) -> None:
        self._folder = Path(folder)
        self._top_k, self._sign = top_k, 1.0 if mode is CheckpointMode.MIN else -1.0
        self._ranks: dict[int, float] = {}
        for epoch, path in self._files().items():
            self._ranks[epoch] = _rank_of(path, self._sign)

    def _files(self) -> dict[int, Path]:
        found = {}
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if match := _NAME.fullmatch(path.name):
                    found[int(match.group(1))] = path
        return found

    def save(self, epoch: int, manifest: Manifest, tensors: Mapping[str, AnyArray], figure: float | None) -> None:
        """Write a checkpoint, and remove those that are neither the newest nor among the best.

        ``figure`` is the monitored figure, if it is known.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        extra = {**manifest.extra, _FIGURE: figure}
        path = self._folder / f"epoch-{epoch:07d}.ckpt.zip"
        write_bundle(path, manifest.model_copy(update={"extra": extra}), tensors)
        self._ranks[epoch] = math.inf if figure is None else self._sign * figure
        ranked = sorted(self._ranks, key=lambda e: (self._ranks[e], -e))
        keep = {epoch, *ranked[: self._top_k]}
        for old, file in self._files().items():
            if old not in keep:
                file.unlink()
                self._ranks.pop(old, None)

    def newest(self) -> Bundle | None:
        """The newest readable checkpoint; damaged ones are logged and skipped."""
        for _, path in sorted(self._files().items(), reverse=True):
            try:
                return read_bundle(path)
            except ArchiveError as error:
                _log.warning("The checkpoint %s is skipped: %s", path.name, error)
        return None


def _rank_of(path: Path, sign: float) -> float:
    try:
        figure = read_bundle(path).manifest.extra.get(_FIGURE)
    except ArchiveError:
        return math.inf  # `newest` reports it; here it only must not be among the best
    return sign * figure if isinstance(figure, int | float) else math.inf
