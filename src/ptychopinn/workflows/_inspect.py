"""Inspect a scan file: its findings, its figures, and which orientation, scale, order and probe fit best."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptychopinn.atomic import write_bytes
from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.diagnostics import Problem
from ptychopinn.data.io import read_scan
from ptychopinn.data.scaling import fit_scaling, mean_pattern, probe_in_counts
from ptychopinn.data.subsampling import neighbour_distances
from ptychopinn.failures import memory_explained
from ptychopinn.inspection import Agreement, GeometryCheck, check_geometry, check_geometry_quickly
from ptychopinn.report import ScanView, inspection_picture
from ptychopinn.short_repr import ShortRepr
from ptychopinn.simulate.probes import probe_width_px
from ptychopinn.typing import StrPath

_log = logging.getLogger(__name__)
_PATTERNS = 512  # evenly spread ones that the mean pattern is made of


@dataclass(frozen=True, eq=False, repr=False)
class Inspection(ShortRepr):
    """What a scan looks like before anything is reconstructed."""

    data: ScanDataset
    geometry: GeometryCheck | None  # None if there are too few patterns to compare
    figures: Mapping[str, float | int | str]
    picture: Path | None  # the file that was written

    @property
    def findings(self) -> tuple[Problem, ...]:
        """What was mended when the scan was read."""
        return self.data.findings

    @property
    def conclusion(self) -> str:
        """Whether patterns, positions and probe agree, and the command that mends them if they do not."""
        if self.geometry is None:
            return "There are too few patterns, or all at one place: nothing can be compared."
        return " ".join(
            part for part in (self.geometry.sentence, self.geometry.doubt, self.geometry.best.remedy) if part
        )


@memory_explained()
def inspect_run(path: StrPath, picture: StrPath | None = None, reading: ReadOptions | None = None) -> Inspection:
    """Inspect a scan file.

    Parameters
    ----------
    picture:
        PNG file to write: mean pattern, positions, probe, and what fits best. None writes nothing.

    Raises
    ------
    PtychoPinnError
        If the scan is refused, or the picture cannot be written.
    """
    return inspect_scan(read_scan(path, **dict(reading or ReadOptions())), picture)


def inspect_scan(data: ScanDataset, picture: StrPath | None = None) -> Inspection:
    """Inspect a scan, as `inspect_run` does with a file."""
    geometry = check_geometry(data)
    written = None if picture is None else write_bytes(picture, _picture(data, geometry))
    return Inspection(data, geometry, _figures(data, geometry), written)


def warn_of_geometry(data: ScanDataset) -> None:
    """Log a warning if a quick look at a scan shows that other axes or signs fit better. It takes under a second."""
    found = check_geometry_quickly(data)
    if found is not None and found.agreement is Agreement.CHANGED:
        _log.warning("%s: %s %s", data.name, found.sentence, found.best.remedy)


def _figures(data: ScanDataset, geometry: GeometryCheck | None) -> dict[str, float | int | str]:
    width = probe_width_px(data.probe)
    figures: dict[str, float | int | str] = {
        "patterns": len(data),
        "N": data.N,
        **data.bad_counts,
        "photons per pattern": fit_scaling(data).mean_counts,
        "probe modes": data.probe.shape[0],
        "probe width, px": width,
    }
    if len(data) > 1:
        step = float(np.median(neighbour_distances(data.positions)))
        figures |= {"step, px": step, "overlap": 1 - step / width}
    if geometry is not None:
        figures |= {
            "patterns and positions": str(geometry.agreement),
            "best": str(geometry.best),
            "residual as given": geometry.given_residual,
            "residual of the best": geometry.best_residual,
            "residual of the mean pattern": geometry.nothing_residual,
            "residual of noise": geometry.noise_residual,
        }
    return figures


def _picture(data: ScanDataset, geometry: GeometryCheck | None) -> bytes:
    trials = () if geometry is None else geometry.trials
    view = ScanView(
        mean_counts=mean_pattern(data, _PATTERNS),
        bad_pixels=data.bad_pixels,
        positions=data.positions,
        probe=probe_in_counts(data, fit_scaling(data), follow_offset=False),
        probe_width_px=probe_width_px(data.probe),
        title=data.name,
    )
    return inspection_picture(view, [(str(trial.change), trial.residual) for trial in trials])
