"""Scans: the frozen dataset, the NPZ contract, scaling, groups of neighbours, splits by space.

Modules: ``dataset`` (what a scan is), ``npz`` (read and write), ``convert``, ``checks`` (what is wrong with a file),
``scaling`` (the one rule), ``grouping``, ``splits``, ``truth`` (known patches), ``batches`` (what training draws).
Behind ``npz``: ``members`` (arrays inside the zip), ``fields`` and ``contract`` (what they mean), ``domain`` (counts,
amplitudes, dose), ``survey`` (the one pass over the values).
"""

from ptychopinn.data.checks import check_scan
from ptychopinn.data.convert import convert_scan
from ptychopinn.data.dataset import Measurement, ScanDataset, ScanMetadata
from ptychopinn.data.npz import read_object, read_scan, write_scan
from ptychopinn.data.problems import Problem, Severity
from ptychopinn.data.scaling import Scaling, fit_scaling
from ptychopinn.data.splits import split_by_space

__all__ = [
    "Measurement",
    "Problem",
    "Scaling",
    "ScanDataset",
    "ScanMetadata",
    "Severity",
    "check_scan",
    "convert_scan",
    "fit_scaling",
    "read_object",
    "read_scan",
    "split_by_space",
    "write_scan",
]
