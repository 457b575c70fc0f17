"""Trained models that come with installed distributions."""

from __future__ import annotations

from pathlib import Path

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.inner_half import FACTOR
from ptychopinn.errors import UsageError
from ptychopinn.plugins import discover
from ptychopinn.typing import StrPath
from ptychopinn.workflows import folders

PRETRAINED = "pretrained"
"""Stands for the model that comes with an installed distribution and fits the scan."""
NO_MODEL = "none"
"""Stands for no model where one is optional."""


def find_pretrained(data: ScanDataset) -> Path | None:
    """The archive of an installed model for patterns of this size, the first by name; None if there is none."""
    return _first_for(data.N)


def find_pretrained_start(data: ScanDataset) -> Path | None:
    """As `find_pretrained`; else the archive of one for the inner half of the patterns, which the first passes use."""
    return find_pretrained(data) or _first_for(data.N // FACTOR)


def _first_for(size: int) -> Path | None:
    return next((spec.path for spec in discover().models.values() if size == spec.N), None)


def model_archive(model: StrPath, data: ScanDataset) -> Path:
    """The archive of a run directory, of a file, of an installed model by its name, or of the one that fits a scan.

    Raises
    ------
    UsageError
        If there is none.
    """
    if str(model) != PRETRAINED:
        return named_archive(model)
    there = discover().models
    found = find_pretrained(data)
    if found is None:
        sizes = sorted({spec.N for spec in there.values()})
        has = f"The installed ones are for N = {', '.join(map(str, sizes))}" if sizes else "None is installed"
        raise UsageError(
            f"There is no pretrained model for patterns of {data.N} x {data.N} pixels. {has}.",
            "Train one (ptychopinn train), install models (./models of a checkout), crop the patterns to such a size "
            "(ptychopinn convert --resize), or use ptychopinn reconstruct, which needs none.",
        )
    return found


def named_archive(model: StrPath) -> Path:
    """The archive of a run directory, of a file, or of an installed model by its name.

    Raises
    ------
    UsageError
        If there is none.
    """
    there = discover().models
    return there[str(model)].path if str(model) in there else folders.model_path(model)
