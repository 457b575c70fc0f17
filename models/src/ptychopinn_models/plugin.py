"""The models of this distribution: one archive for each width of patterns."""

from __future__ import annotations

from pathlib import Path

from ptychopinn.hookspecs import hookimpl
from ptychopinn.reconstructor import ModelSpec

_FOLDER = Path(__file__).parent
_SIZES = (64, 128)


@hookimpl
def ptychopinn_models() -> list[ModelSpec]:
    """A network for each size, trained on simulated objects under simulated probes."""
    return [
        ModelSpec(f"family-{size}", _FOLDER / f"family-{size}.zip", size, "simulated objects under simulated probes")
        for size in _SIZES
    ]
