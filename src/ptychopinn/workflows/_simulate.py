"""Write a simulated scan to a file."""

from __future__ import annotations

from pathlib import Path

from ptychopinn.config.simulation import SimulationConfig
from ptychopinn.data.io import write_scan
from ptychopinn.errors import UsageError
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.simulate import simulate_scan
from ptychopinn.typing import StrPath


def simulate_run(
    config: SimulationConfig, output: StrPath, *, overwrite: bool = False, monitor: Monitor = NULL_MONITOR
) -> Path:
    """Simulate a scan and write it as a canonical NPZ file.

    Raises UsageError if the file exists and ``overwrite`` is false.
    """
    path = Path(output)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already.", "Choose another name, or use --overwrite.")
    write_scan(path, simulate_scan(config, monitor=monitor))
    return path
