"""Terms of the loss, independent of the dose, for the tensors of any framework."""

from __future__ import annotations

from ptychopinn.forward import COUNT_FLOOR
from ptychopinn.training.operations import Operations, Tensor

_PIXELS = (-2, -1)
_TINY = 1e-12  # gives 0 a phase


def without_marks(ops: Operations, counts: Tensor, good: Tensor) -> tuple[Tensor, Tensor]:
    """Counts as a network sees them, and where they were measured.

    Parameters
    ----------
    counts:
        (..., N, N) float32 of a batch; bad values of single patterns are -1 minus what the pixel has on average
        (`ptychopinn.data.dataset.ScanDataset.marked_counts`).
    good:
        (N, N) float32: 1 where the detector measured, else 0.

    Returns
    -------
    Counts with that average in their place, and ``good`` of each pattern, both (..., N, N).
    """
    bad = counts < 0
    return ops.where(bad, -1 - counts, counts), ops.where(bad, 0.0, good)


def poisson_deviance(
    ops: Operations, expected: Tensor, counts: Tensor, good: Tensor, mean_counts: Tensor | float
) -> Tensor:
    """Half the Poisson deviance of patterns over the mean counts of a pattern: (...,), 0 for a perfect prediction.

    Expected and measured counts are (..., N, N) float32; ``good``, (N, N) or (..., N, N), is 1 where the detector
    measured, else 0.
    """
    e, n = expected + COUNT_FLOOR, counts + COUNT_FLOOR
    return ops.sum((e - n - n * ops.log(e / n)) * good, _PIXELS) / mean_counts


def amplitude_error(
    ops: Operations, expected: Tensor, counts: Tensor, good: Tensor, mean_counts: Tensor | float
) -> Tensor:
    """Mean absolute error of diffraction amplitudes, divided by their root mean square; see `poisson_deviance`."""
    pixels = expected.shape[-1] * expected.shape[-2]
    error = abs(ops.sqrt(expected + COUNT_FLOOR) - ops.sqrt(counts + COUNT_FLOOR)) * good
    return ops.sum(error, _PIXELS) / (mean_counts * pixels) ** 0.5


def total_variation(ops: Operations, canvas: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, (..., M, M) complex to (...,)."""
    dy, dx = canvas[..., 1:, :] - canvas[..., :-1, :], canvas[..., :, 1:] - canvas[..., :, :-1]
    return ops.mean(abs(dy), _PIXELS) + ops.mean(abs(dx), _PIXELS)


def patch_error(ops: Operations, patches: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean absolute error against known patches, apart from a constant phase per patch.

    The truth is multiplied by the phase of its weighted product with the prediction. This phase has no gradient.

    (..., n, n) complex64 patches, weighted by the intensity of the probe, (n, n) float32, or (..., n, n), one for each
    patch, to (...,) float32.
    """
    weighted = ops.stop_gradient(patches) * ops.conj(truth) * ops.as_complex(weights)
    product = ops.sum(weighted, _PIXELS, keepdims=True) + _TINY
    turned = truth * (product / ops.as_complex(abs(product)))
    return ops.sum(abs(patches - turned) * weights, _PIXELS) / ops.sum(weights, _PIXELS)


def patch_weights(ops: Operations, probe: Tensor, patch_size: int) -> Tensor:
    """As `ptychopinn.stitching.patch_weights`, for (..., modes, N, N) probes, and without gradient."""
    margin = (probe.shape[-1] - patch_size) // 2
    inner = slice(margin, margin + patch_size)
    power = ops.sum(abs(ops.stop_gradient(probe)[..., inner, inner]) ** 2, (-3,))
    return power / ops.max(power, _PIXELS, keepdims=True)


def neighbour_products(ops: Operations, patches: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted sums of every pixel of (..., n, n) patches times its neighbour's conjugate, without gradient.

    Along y and along x, each (2,) float32, real and imaginary part. Their angles are the mean phase gradient in rad a
    pixel: a detector's offset shows as such a ramp under a fixed probe.
    """
    patches, w = ops.stop_gradient(patches), ops.as_complex(ops.stop_gradient(weights))
    dy = patches[..., 1:, :] * ops.conj(patches[..., :-1, :]) * w[..., 1:, :]
    dx = patches[..., 1:] * ops.conj(patches[..., :-1]) * w[..., 1:]
    return ops.as_real(ops.sum(dy)), ops.as_real(ops.sum(dx))
