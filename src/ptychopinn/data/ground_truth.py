"""Known object patches of a scan, for supervised training."""

from __future__ import annotations

import numpy as np

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.subsampling import evenly_spread
from ptychopinn.errors import DataError
from ptychopinn.forward import intensity
from ptychopinn.geometry import Frame, Windows
from ptychopinn.interpolation import place_on_pixels
from ptychopinn.typing import ComplexArray, FloatArray, IntArray

_APRON_PX = 12  # margin on each side: reach of the mirrored edge of a spline
_SAMPLE = 256
_CONSTANT = 1e-3  # relative deviation below which an object is a placeholder


class TruthPatches:
    """Known patches, n wide, at the fractional positions of a scan, in the scale of the physics.

    They are cut from ``patches_guess`` (key Y), else from ``object_guess``. They are scaled so that the (modes, N, N)
    probe, in counts, gives the mean counts on good pixels.

    Raises
    ------
    DataError
        If there is no known object, or only a constant one (a placeholder of exported scans).
    """

    def __init__(self, data: ScanDataset, probe: ComplexArray, mean_counts: float, patch_size: int) -> None:
        if data.patches_guess is None and data.object_guess is None:
            raise DataError(
                f"Supervised training needs known object patches; '{data.name}' has neither objectGuess nor Y.",
                "Use --model-type pinn, or a scan with its object.",
            )
        self._data, self._size = data, patch_size
        self._factor = np.float32(1.0)
        sample = evenly_spread(len(data), _SAMPLE)
        windows = self._cut(sample, data.N)
        mean = windows.mean()
        if np.abs(windows - mean).mean() <= _CONSTANT * np.abs(mean):
            raise DataError(
                f"The objectGuess of '{data.name}' is constant ({mean:.3g}): a placeholder, not a known object.",
                "Use --model-type pinn, or put the object into the file.",
            )
        good = ~data.bad_pixels  # mean counts are those of good pixels
        seen = [intensity((probe * window)[None])[0][good].sum(dtype=np.float64) for window in windows]
        self._factor = np.float32(np.sqrt(mean_counts / np.mean(seen)))

    def __call__(self, indices: IntArray) -> ComplexArray:
        """Patches of some patterns: (b,) indices to (b, n, n) complex64, in the probe's frame."""
        return self._cut(indices, self._size) * self._factor

    def _cut(self, indices: IntArray, size: int) -> ComplexArray:
        data = self._data
        if data.patches_guess is not None:
            margin = (data.N - size) // 2
            return np.asarray(data.patches_guess[indices][:, margin : margin + size, margin : margin + size])
        assert data.object_guess is not None  # checked when made
        return true_patches(data.object_guess, data.positions[indices], size)


def true_patches(obj: ComplexArray, positions: FloatArray, size: int) -> ComplexArray:
    """Patches of an object in the probe's frame, ``object[y + r_y - (n-1)/2, x + r_x - (n-1)/2]``.

    (H, W) complex and (b, 2) float64 positions (y, x), object pixels, to (b, n, n), n = ``size``, of the dtype of the
    object; interpolated by quintic splines where positions are fractional.
    """
    windows = Windows.at(positions, size + 2 * _APRON_PX, Frame(obj.shape))
    wide, fractions = windows.cut(obj), windows.fractions
    inner = slice(_APRON_PX, _APRON_PX + size)
    return place_on_pixels(wide, -fractions)[:, inner, inner]
