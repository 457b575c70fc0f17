"""A distribution with the plugins of the tests, for this process and for those it starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


def install_plugins(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Put the NumPy backend and the solvers of `solver_plugin` on the search path, as if they were installed."""
    info = folder / "toys-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ptychopinn]\nnumpy = numpy_backend\ntoys = solver_plugin\n")
    patch.setattr(sys, "path", [str(folder), *sys.path])
