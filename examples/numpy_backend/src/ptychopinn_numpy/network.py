"""The network, and the terms of its loss, whose formulas are the core's: functions of arrays.

The network is a few projections (rPIE: Maiden et al., Optica 4, 736, 2017) that start from a flat patch; the length of
their step is the one number to learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.fft

from ptychopinn.training.losses import amplitude_error, patch_error, patch_weights, poisson_deviance, without_marks
from ptychopinn.typing import ComplexArray, FloatArray
from ptychopinn_numpy import operations

_FLOOR = 1e-3  # of the root mean square amplitude of a detector pixel: keeps ratios finite


def project(
    amplitudes: FloatArray, probe: ComplexArray, good: FloatArray, step: float, iterations: int, size: int
) -> tuple[ComplexArray, FloatArray]:
    """Patches that explain patterns one by one.

    Parameters
    ----------
    amplitudes:
        (b, N, N) float32, in units of the root mean counts of a pattern, DC at [0, 0].
    probe:
        (modes, N, N) complex64 in the same units.
    good:
        (N, N) or (b, N, N) float32, DC at [0, 0]: 1 where the detector measured.
    step, iterations:
        Length and number of the projections.
    size:
        n <= N, the width of the patches; around them the object is 1 + 0j.

    Returns
    -------
    (b, n, n) complex64 patches, and the (b, N, N) float32 intensities that they give.
    """
    margin = (probe.shape[-1] - size) // 2
    centre = (..., slice(margin, margin + size), slice(margin, margin + size))
    direction = step * probe.conj() / (np.abs(probe) ** 2).sum(axis=0).max()
    floor = np.float32(_FLOOR / probe.shape[-1])
    patch = np.ones(amplitudes.shape, np.complex64)
    for _ in range(iterations):
        field, modelled = _propagate(patch, probe)
        ratio = good * (amplitudes / (np.sqrt(modelled) + floor) - 1)
        back = scipy.fft.ifft2(field * ratio[:, None], norm="ortho")
        patch[centre] += (direction * back).sum(axis=1, dtype=np.complex64)[centre]
    return patch[centre], _propagate(patch, probe)[1]


def _propagate(patch: ComplexArray, probe: ComplexArray) -> tuple[ComplexArray, FloatArray]:
    field: ComplexArray = scipy.fft.fft2(probe * patch[:, None], norm="ortho")
    return field, (field.real**2 + field.imag**2).sum(axis=1)


def loss_terms(
    batch: Mapping[str, Any],
    patches: ComplexArray,
    expected: FloatArray,
    good: FloatArray,
    probe: ComplexArray,
    mean_counts: float,
) -> dict[str, float]:
    """The terms of the loss that a batch has, without their weights.

    Parameters
    ----------
    batch:
        From `ptychopinn.training.EpochSource`: ``counts`` (g, C, N, N), ``member_share`` (g, C) and, where known,
        ``truth`` (g, C, n, n).
    patches, expected:
        (b, n, n) and, in counts, (b, N, N) of its g * C patterns.
    good, probe:
        As in `project`.
    mean_counts:
        Mean photons a pattern.
    """
    share = batch["member_share"].ravel()
    counts, good = without_marks(operations, batch["counts"].reshape(expected.shape), good)
    given = operations, expected, counts, good, mean_counts
    terms = {"nll": poisson_deviance(*given) @ share, "mae": amplitude_error(*given) @ share}
    if "truth" in batch:
        weights = patch_weights(operations, probe, patches.shape[-1])
        terms["realspace_mae"] = (
            patch_error(operations, patches, batch["truth"].reshape(patches.shape), weights) @ share
        )
    return {name: float(value) for name, value in terms.items()}
