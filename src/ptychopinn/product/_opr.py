"""A varying probe as Ptychodus stores it: modes (OPR, incoherent, y, x), and a weight for each mode and position.

There the first incoherent mode of a position is the sum of the modes times their weights; the other incoherent modes
are those of the first OPR mode.
"""

from __future__ import annotations

import numpy as np

from ptychopinn.errors import DataError
from ptychopinn.probe_variation import ProbeVariation
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray


def to_opr(probe: ComplexArray, variation: ProbeVariation | None) -> tuple[ComplexArray, FloatArray | None]:
    """(1 + K, modes, N, N) complex64, and (n, 1 + K) float32 weights, the first of them 1; None without variation."""
    if variation is None:
        return probe[None], None
    modes = np.zeros((len(variation.modes), *probe.shape), np.complex64)
    modes[:, 0] = variation.modes
    weights = np.concatenate([np.ones((len(variation.weights), 1), np.float32), variation.weights], axis=1)
    return np.concatenate([probe[None], modes]), weights


def from_opr(array: ComplexArray, weights: AnyArray | None) -> tuple[ComplexArray, ProbeVariation | None]:
    """The (modes, N, N) probe and its variation, of probes of 2 to 4 axes.

    Without weights the first OPR mode is the probe. If weights of the first one are not 1, the probe is the mean over
    the positions, and all modes vary about it.

    Raises
    ------
    DataError
        If the weights are not those of the modes.
    """
    if array.ndim < 4 or weights is None:
        return (array[None] if array.ndim == 2 else array[0] if array.ndim == 4 else array), None
    if weights.shape[1:] != array.shape[:1] or not np.isfinite(weights).all():
        raise DataError(
            f"The probe has {array.shape[0]} OPR modes, their weights the shape {weights.shape}.", "Save both again."
        )
    probe, modes, rest = array[0], array[1:, 0], weights[:, 1:]
    if (weights[:, 0] != 1).any():
        mean = weights.mean(axis=0)
        probe = probe.copy()
        probe[0] = np.tensordot(mean, array[:, 0], axes=1)
        modes, rest = array[:, 0], weights - mean
    if len(modes) == 0:
        return probe, None
    return probe, ProbeVariation(modes.astype(np.complex64), rest.astype(np.float32))
