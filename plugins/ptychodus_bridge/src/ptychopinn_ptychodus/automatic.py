"""The entry that needs no training and no decision: what ``ptychopinn reconstruct`` does."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptychodus.api.reconstruct import ReconstructInput, ReconstructOutput

from ptychopinn.config import ExecutionOptions
from ptychopinn.config.automatic import AutomaticConfig
from ptychopinn.config.settings import Setting, setting_of, settings_of
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import write_scan
from ptychopinn.product import read_product
from ptychopinn.workflows import folders
from ptychopinn_ptychodus.conversion import in_frame_of_input, output_product, scan_of
from ptychopinn_ptychodus.entry import Entry, scratch_folder
from ptychopinn_ptychodus.run_state import PROGRESS_GOAL, Run
from ptychopinn_ptychodus.supervision import shares_of

NAME = "reconstruct"
_log = logging.getLogger("ptychopinn.ptychodus")


def automatic_settings() -> list[Setting]:
    """The settings of the entry."""
    return [
        *settings_of("automatic", AutomaticConfig),
        setting_of("execution", ExecutionOptions, "accelerator"),
    ]


class AutomaticReconstructor(Entry):
    """Reconstruct the scan that is open, with an installed model or from a flat object."""

    @property
    def name(self) -> str:
        """As the command is called."""
        return NAME

    def reconstruct(self, parameters: ReconstructInput) -> Iterator[ReconstructOutput]:
        """Reconstruct; in the window the object so far comes first, every few seconds."""
        run = Run(self.name, "reconstruct", product_item=self._host.take_product_item())
        with self._report_run(run), scratch_folder(run) as scratch:
            data = scan_of(parameters, with_object=False)
            # A worker that is stopped removes its folder, but the object so far is wanted.
            own, folder = scratch / "job", scratch / "run"
            own.mkdir()
            write_scan(own / "scan.npz", data)
            arguments = {"scan": own / "scan.npz", "output": folder, "settings": self.settings.values()}
            function = "ptychopinn_ptychodus.worker:reconstruct"
            with self._job(function, arguments, run, own, shares_of("reconstruct")) as job:
                written = _Written(folder / folders.PRODUCT)
                for _ in job.polls():
                    if self._host.has_window and not run.stopping and written.changed():
                        run.has_product = True
                        yield ReconstructOutput(_product(parameters, data, written.path), job.progress)
                done = job.result()
            if done is None:
                return
            _log.info("%s", done[0]["figures"]["what was done"])
            product = _product(parameters, data, done[0]["files"]["product"])
            run.has_product = True
        yield ReconstructOutput(product, PROGRESS_GOAL)


class _Written:
    """A file that another process replaces."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._time_ns = 0

    def changed(self) -> bool:
        """Whether it is new since the last call."""
        try:
            now = self.path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        before, self._time_ns = self._time_ns, now
        return now != before


def _product(parameters: ReconstructInput, data: ScanDataset, path: str | Path) -> Any:
    return output_product(parameters, in_frame_of_input(parameters, data, read_product(path)), [])
