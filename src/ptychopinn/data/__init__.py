"""Scans: dataset, scan files, scaling, groups of neighbours, spatial splits.

Modules: ``dataset`` (what a scan is), ``io`` (read and write scan files), ``convert``, ``checks`` (what is wrong with a
file), ``scaling``, ``grouping``, ``splits``, ``ground_truth`` (known patches), ``batches`` (what training draws).
Behind ``io``: ``scan_file`` (arrays inside an NPZ file), ``scan_reader`` and ``contract`` (what they mean), ``units``
(counts, amplitudes, dose), ``statistics`` (one pass over the values). The names below are imported when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptychopinn.data.checks import check_scan as check_scan
    from ptychopinn.data.convert import convert_scan as convert_scan
    from ptychopinn.data.dataset import Measurement as Measurement
    from ptychopinn.data.dataset import ScanDataset as ScanDataset
    from ptychopinn.data.dataset import ScanMetadata as ScanMetadata
    from ptychopinn.data.diagnostics import Problem as Problem
    from ptychopinn.data.diagnostics import Severity as Severity
    from ptychopinn.data.io import read_object as read_object
    from ptychopinn.data.io import read_scan as read_scan
    from ptychopinn.data.io import write_scan as write_scan
    from ptychopinn.data.mending import mend_scan as mend_scan
    from ptychopinn.data.scaling import Scaling as Scaling
    from ptychopinn.data.scaling import fit_scaling as fit_scaling
    from ptychopinn.data.splits import split_by_space as split_by_space

_HOME = {
    "Measurement": "dataset",
    "Problem": "diagnostics",
    "ScanDataset": "dataset",
    "ScanMetadata": "dataset",
    "Scaling": "scaling",
    "Severity": "diagnostics",
    "check_scan": "checks",
    "convert_scan": "convert",
    "fit_scaling": "scaling",
    "mend_scan": "mending",
    "read_object": "io",
    "read_scan": "io",
    "split_by_space": "splits",
    "write_scan": "io",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ptychopinn.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ptychopinn.data.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
