"""Solve for the low-frequency phase error of an object, from the displacement of the patterns on the detector.

A slow phase is a phase gradient within one window, and a gradient displaces the pattern on the detector. Iterative
solvers pass such phases on from window to window and need many passes. Here the gradient at every pattern is one
Gauss-Newton step on its amplitudes, and one smooth phase is fitted to all gradients:

    J_jk = Re(conj(F_j) FFT(i x_k psi_j)) / A_j      F_j = FFT(psi_j)
    H_j  = J_j J_j^T,   b_j = J_j (A_measured - A_j)
    minimise  sum_j (grad phi(r_j) - H_j^-1 b_j)^T H_j (grad phi(r_j) - H_j^-1 b_j)

with a small weight on the second differences of phi, which is a sum of cubic B-splines. This is the coarse grid of a
two-grid method; the fine grid is a pass of any solver. With many photons, only every second pixel along y and x is
used, which suffices for two numbers per pattern: it is the transform of the exit wave folded to half its width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sparse

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary, slices_of
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.subsampling import thin_positions
from ptychopinn.forward import power
from ptychopinn.geometry import Canvas, Windows
from ptychopinn.interpolation import ShiftedProbe
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.scan_model import ScanModel
from ptychopinn.typing import ComplexArray, FloatArray, IntArray

Sparse: TypeAlias = Any  # sparse arrays of scipy, which are not typed
_BATCH_VALUES = 1 << 18  # exit-wave values processed at a time; with fewer, threads wait for each other
_BRIGHT = 5e4  # photons per pattern, from which a quarter of the pixels is as accurate as all
_MAX_CELLS = 96  # cells along a side; limits the cost
_STIFFNESS = 1e-3  # weight of the second differences, relative to the mean weight of a node
_ANCHOR = 1e-6  # weight of the phase itself, because the patterns do not determine its mean
_TINY = float(np.finfo(np.float32).tiny)
_CELL = 0.7  # minimum cell in mean distances of positions; one pattern of each cell is used


def slow_phase(
    patterns: Patterns,
    model: ScanModel,
    canvas: Canvas,
    *,
    indices: IntArray | None = None,
    monitor: Monitor = NULL_MONITOR,
) -> Array | None:
    """Solve for the smooth phase that an object lacks.

    Parameters
    ----------
    patterns:
        Patterns of the scan. In a dense scan only one per node of the splines is used. Bad pixels are ignored.
    model:
        Its model; flux and background are not used.
    canvas:
        The object, of the patterns' library or on the host.
    indices:
        (k,) int64: indices of the patterns to use; None for all.
    monitor:
        Asked at every batch.

    Returns
    -------
    (H, W) float32 of the object's library in rad, with mean 0 over the positions: multiply the object by
    ``exp(i phase)``. None if cancelled, or if the patterns do not determine it.
    """
    library = patterns.library
    indices = np.arange(len(patterns)) if indices is None else indices
    local = canvas.frame.local(model.positions[indices])
    grid = SlowPhaseGrid.over(local, library.to_host(model.probe))
    chosen = grid.chosen
    gradients = phase_gradients(patterns, indices[chosen], model, canvas, monitor)
    if gradients is None:
        return None
    coefficients = grid.solve(local[chosen], *gradients, library)
    return None if coefficients is None else grid.phase(coefficients, canvas.frame.shape, library=canvas.library)


@dataclass(frozen=True, eq=False)
class SlowPhaseGrid:
    """The nodes of the splines of a smooth phase over an object, and the patterns that determine it."""

    # (y, x) of the first node, and the distance of nodes, pixels of the object.
    first: tuple[float, float]
    spacing: float
    nodes: tuple[int, int]  # number of nodes along y and x
    chosen: IntArray  # (k,) int64, ascending: indices of the patterns that are used; in a dense scan one for each node

    @classmethod
    def over(cls, local: FloatArray, probe: ComplexArray) -> SlowPhaseGrid:
        """The grid for (n, 2) float64 positions in pixels of the object, and a probe on the host."""
        low, extent = local.min(axis=0), np.maximum(np.ptp(local, axis=0), 1.0)
        across = np.maximum(np.round(np.sqrt(len(local) * extent / extent[::-1])), 1)  # positions along each side
        between = float((extent / across).max())
        spacing = max(between, _width(probe), float(extent.max()) / _MAX_CELLS)
        chosen = thin_positions(local, spacing if _CELL * spacing > between else _CELL * between)
        down, right = (np.ceil(extent / spacing).astype(int) + 6).tolist()  # splines reach two nodes further
        y, x = (low - 2 * spacing).tolist()
        return cls((y, x), spacing, (down, right), chosen)

    def solve(
        self, local: FloatArray, hessian: FloatArray, slope: FloatArray, library: ArrayLibrary = NUMPY
    ) -> FloatArray | None:
        """The coefficients of the phase that fits the gradients of patterns best, with mean 0 over these patterns.

        Parameters
        ----------
        local:
            (k, 2) float64, positions of the patterns in pixels of the object.
        hessian, slope:
            Results of `phase_gradients` for them.

        Returns
        -------
        ``nodes`` float64; None if the patterns do not determine the phase.
        """
        weight = float(np.trace(hessian, axis1=1, axis2=2).mean())
        if not (np.isfinite(weight) and weight > 0 and np.isfinite(slope).all()):
            return None
        (values_y, slopes_y), (values_x, slopes_x) = (self._splines(local[:, k], k) for k in (0, 1))
        along = [_products(slopes_y, values_x) / self.spacing, _products(values_y, slopes_x) / self.spacing]
        matrix = sum(along[a].T @ sparse.diags_array(hessian[:, a, b]) @ along[b] for a in (0, 1) for b in (0, 1))
        stiff = [sparse.diags_array([1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(n - 2, n)) for n in self.nodes]
        eyes = [sparse.eye(n) for n in self.nodes]
        bending = sparse.vstack([sparse.kron(stiff[0], eyes[1]), sparse.kron(eyes[0], stiff[1])])
        scale = float(matrix.diagonal().mean())
        matrix = matrix + scale * (_STIFFNESS * (bending.T @ bending) + _ANCHOR * sparse.eye(matrix.shape[0]))
        right = along[0].T @ slope[:, 0] + along[1].T @ slope[:, 1]
        coefficients: FloatArray = library.solve_sparse(matrix, right).reshape(self.nodes)
        # The splines sum to 1, so a common offset of the coefficients is a constant phase.
        return coefficients - float((_products(values_y, values_x) @ coefficients.ravel()).mean())

    def phase(
        self,
        coefficients: FloatArray,
        shape: tuple[int, int],
        offset: tuple[int, int] = (0, 0),
        library: ArrayLibrary = NUMPY,
    ) -> Array:
        """(H, W) float32 of a library: the phase in a part of the object of this shape, which begins at a pixel."""
        rows, columns = (self._splines(np.arange(shape[k], dtype=np.float64) + offset[k], k)[0] for k in (0, 1))
        return library.matmul(
            library.from_host((rows @ coefficients).astype(np.float32)),
            library.from_host(columns.T.toarray().astype(np.float32)),
        )

    def values(self, coefficients: FloatArray, local: FloatArray) -> FloatArray:
        """(n,) float64: the phase at (n, 2) places in pixels of the object."""
        found: FloatArray = _products(*(self._splines(local[:, k], k)[0] for k in (0, 1))) @ coefficients.ravel()
        return found

    def _splines(self, places: FloatArray, axis: int) -> tuple[Sparse, Sparse]:
        return _splines((places - self.first[axis]) / self.spacing, self.nodes[axis])


def without_plane(phase: Array, values: FloatArray, at: IntArray, library: ArrayLibrary) -> tuple[Array, FloatArray]:
    """Subtract from a phase the plane that fits it best at some pixels.

    Parameters
    ----------
    phase:
        (H, W) float32 of the library.
    values, at:
        (n,) its values, on the host, at (n, 2) pixels (y, x).

    Returns
    -------
    The phase and the values without the plane.
    """
    centre = at.mean(axis=0)  # about it, slopes and mean are independent, also for positions on a line
    mean = float(values.mean())
    slopes = np.linalg.lstsq(at - centre, values - mean, rcond=None)[0]
    down, across = (slopes[axis] * (np.arange(phase.shape[axis]) - centre[axis]) for axis in (0, 1))
    down += mean
    rows, columns = (library.from_host(along.astype(np.float32)) for along in (down, across))
    return phase - rows[:, None] - columns[None, :], values - down[at[:, 0]] - across[at[:, 1]]


def multiply_by_phase(
    obj: Array, phase: Array, library: ArrayLibrary = NUMPY, *, where: Array | None = None, sign: float = 1.0
) -> Array:
    """Multiply an object by ``exp(i sign phase)``; may change it.

    Parameters
    ----------
    obj:
        (H, W) complex64.
    phase:
        (H, W) float32, rad.
    where:
        (H, W) bool, pixels to change; None for all.
    """
    xp = library.xp

    def turn(values: Array, angle: Array, *mask: Array) -> Array:
        # Sine and cosine: the exponential of a complex number takes ten times as long.
        factor = library.complex(xp.cos(angle), xp.sin(angle) if sign > 0 else -xp.sin(angle))
        for inside in mask:
            factor = xp.where(inside, factor, xp.ones_like(factor))
        values *= factor
        return values

    masks = () if where is None else (where,)
    return library.by_rows(turn, obj, phase, *masks)


def _width(probe: ComplexArray) -> float:
    """Root mean square diameter of the probe along one axis; closer patterns measure the same gradient."""
    power = (np.abs(probe) ** 2).sum(axis=0)
    r = np.arange(probe.shape[-1]) - (probe.shape[-1] - 1) / 2
    radius2 = (power * (r[:, None] ** 2 + r[None, :] ** 2)).sum() / power.sum()
    return float(np.sqrt(2 * radius2))


def phase_gradients(
    patterns: Patterns, chosen: IntArray, model: ScanModel, canvas: Canvas, monitor: Monitor
) -> tuple[FloatArray, FloatArray] | None:
    """(k, 2, 2) and (k, 2) float64 on the host: ``H`` and ``b`` of the module docstring; None if cancelled.

    ``chosen`` are the indices of the patterns; the others are as in `slow_phase`.
    """
    library, xp, size = patterns.library, patterns.library.xp, patterns.data.N
    windows = Windows.on(canvas, model.positions[chosen], size, library)
    probe = model.exposed_probe(library)
    probe_at = model.probe_at(library)
    if model.variation is None:
        shifted = ShiftedProbe(probe, library)  # faster

        def probe_at(fractions: Array, indices: IntArray) -> Array:
            return shifted(fractions)

    bright = float(xp.sum(xp.abs(probe) ** 2)) >= _BRIGHT
    stride = 2 if bright and size % 4 == 0 else 1  # with a multiple of 4, DC is among the pixels used
    half = size // stride
    axis = library.arange(half, "float32")  # its origin does not matter
    step = library.batch_length(math.prod(probe.shape), _BATCH_VALUES)

    def measure(part: slice) -> tuple[Array, Array] | None:
        if monitor.cancelled:
            return None
        some = windows[part]
        waves = probe_at(some.fractions, chosen[part])
        waves *= some.cut(canvas.array)[:, None, ...]
        # x times the wave, folded: x of the first half times the folded wave, plus ``half`` times the second half.
        by_y, by_x = (_fold(waves, axes, stride) for axes in ((-1,), (-2,)))
        rest = [by_y[..., half:, :], by_x[..., half:]]
        folded = _fold(by_y, (-2,), stride)
        levers = []
        for k, along in enumerate((axis[:, None], axis[None, :])):
            lever = folded * along
            if stride > 1:
                lever += half * rest[k]
            levers.append(library.fft2(lever))
        field = library.fft2(folded) / size
        measured, good = patterns.measured(patterns.amplitudes(chosen[part]))
        measured = measured[:, ::stride, ::stride]
        modelled = xp.sqrt(power(field, library))
        missing = measured - modelled
        modelled += 1e-6 * xp.max(modelled) + _TINY
        weight = patterns.unsaturated(1 / (modelled * size), measured)
        if good is not None:
            weight *= good[..., ::stride, ::stride]
        real, imag = xp.real(field), xp.imag(field)
        # Derivatives by the gradients, i times the levers.
        changes = [weight * xp.sum(imag * xp.real(moved) - real * xp.imag(moved), axis=1) for moved in levers]
        jacobian = xp.reshape(xp.stack(changes, axis=1), (-1, 2, half**2))
        missing = xp.reshape(missing, (-1, half**2, 1))
        return library.matmul(jacobian, xp.matrix_transpose(jacobian)), library.matmul(jacobian, missing)[..., 0]

    measured = library.spread(measure, slices_of(len(chosen), step))
    if monitor.cancelled or any(part is None for part in measured):
        return None
    hessian, slope = (library.to_host(xp.concat([part[k] for part in measured if part is not None])) for k in (0, 1))
    return hessian.astype(np.float64), slope.astype(np.float64)


def _fold(waves: Array, axes: tuple[int, ...], stride: int) -> Array:
    """Add both halves along some axes. The transform of the result is every second frequency, exactly."""
    if stride > 1:
        for axis in axes:
            half = waves.shape[axis] // 2
            rest = (slice(None),) * (-1 - axis)
            waves = waves[(..., slice(None, half), *rest)] + waves[(..., slice(half, None), *rest)]
    return waves


def _splines(t: FloatArray, nodes: int) -> tuple[Sparse, Sparse]:
    """(n, nodes) sparse values, and slopes per node, of cubic B-splines at ``t``, in nodes from the first."""
    t = np.clip(t, 0, nodes - 3 - 1e-9)
    first = np.floor(t).astype(np.int64)
    u = t - first
    values = np.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], axis=1) / 6
    slopes = np.stack([-((1 - u) ** 2), 3 * u**2 - 4 * u, -3 * u**2 + 2 * u + 1, u**2], axis=1) / 2
    rows, columns = np.repeat(np.arange(len(t)), 4), (first[:, None] + np.arange(4)).ravel()
    shape = (len(t), nodes)
    return (
        sparse.csr_array((values.ravel(), (rows, columns)), shape),
        sparse.csr_array((slopes.ravel(), (rows, columns)), shape),
    )


def _products(a: Sparse, b: Sparse) -> Sparse:
    """(n, p q) sparse: products of row j of a (n, p) with row j of b (n, q), which have four entries per row."""
    n = a.shape[0]
    columns = a.indices.reshape(n, 4, 1) * b.shape[1] + b.indices.reshape(n, 1, 4)
    values = a.data.reshape(n, 4, 1) * b.data.reshape(n, 1, 4)
    rows = np.repeat(np.arange(n), 16)
    return sparse.csr_array((values.ravel(), (rows, columns.ravel())), (n, a.shape[1] * b.shape[1]))
