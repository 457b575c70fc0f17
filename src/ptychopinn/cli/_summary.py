"""How the result of a run is told."""

from __future__ import annotations

from typing import Any

from ptychopinn.cli._console import Console


def show_run(result: Any, console: Console) -> int:
    """Print what a run made; the exit code."""
    return 0
