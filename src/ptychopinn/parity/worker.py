"""One side of a parity check, in its own process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ptychopinn.config.infer import InferConfig
from ptychopinn.data.io import read_scan
from ptychopinn.parity.stages import stages_of
from ptychopinn.workflows import load_reconstructor


def write_stages(
    scan: Mapping[str, Any],
    model: str,
    backend: str,
    options: Mapping[str, Any],
    indices: Sequence[int],
    output: str,
) -> None:
    """Compute the stages of a model on some patterns of a scan, and write them as NPZ; ``scan`` is for `read_scan`."""
    batch = read_scan(**scan).select(np.asarray(indices))
    reconstructor = load_reconstructor(model, backend=backend, options=options)
    np.savez(output, **stages_of(reconstructor, batch, InferConfig()))  # type: ignore[arg-type]
