"""Scans: the frozen dataset, the NPZ contract, scaling, groups of neighbours, splits by space.

Modules: ``dataset`` (what a scan is), ``npz`` (read and write), ``convert``, ``checks`` (what is wrong with a file),
``scaling`` (the one rule), ``grouping``, ``splits``, ``truth`` (known patches), ``batches`` (what training draws).
Behind ``npz``: ``members`` (arrays inside the zip), ``fields`` and ``contract`` (what they mean), ``domain`` (counts,
amplitudes, dose), ``survey`` (the one pass over the values). The names below are imported when they are used.
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
    from ptychopinn.data.npz import read_object as read_object
    from ptychopinn.data.npz import read_scan as read_scan
    from ptychopinn.data.npz import write_scan as write_scan
    from ptychopinn.data.problems import Problem as Problem
    from ptychopinn.data.problems import Severity as Severity
    from ptychopinn.data.scaling import Scaling as Scaling
    from ptychopinn.data.scaling import fit_scaling as fit_scaling
    from ptychopinn.data.splits import split_by_space as split_by_space

_HOME = {
    "Measurement": "dataset",
    "Problem": "problems",
    "ScanDataset": "dataset",
    "ScanMetadata": "dataset",
    "Scaling": "scaling",
    "Severity": "problems",
    "check_scan": "checks",
    "convert_scan": "convert",
    "fit_scaling": "scaling",
    "read_object": "npz",
    "read_scan": "npz",
    "split_by_space": "splits",
    "write_scan": "npz",
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
