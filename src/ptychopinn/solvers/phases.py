"""The slow phases of an object, solved at once from how far patterns lie from where the model puts them.

A slow phase over the object is a gradient within one window, and a gradient moves the pattern on the detector. An
iteration hands such phases on from window to window and needs many passes for it. Here the gradient of every pattern is
one Gauss-Newton step on its amplitudes, and one smooth phase is fitted to all of them:

    J_jk = Re(conj(F_j) FFT(i x_k psi_j)) / A_j      F_j = FFT(psi_j)
    H_j  = J_j J_j^T,   b_j = J_j (A_measured - A_j)
    minimise  sum_j (grad phi(r_j) - H_j^-1 b_j)^T H_j (grad phi(r_j) - H_j^-1 b_j)

and a small weight on the second differences of phi, which is a sum of cubic B-splines. It is the coarse grid of a
two-grid method, whose fine grid is any solver's pass. Where photons are many, two numbers a pattern need not all of it:
every second pixel along y and x is looked at, the transform of an exit wave that is folded to half its width.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import scipy.fft
import scipy.sparse as sparse
from scipy.sparse.linalg import spsolve

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.thinning import one_a_cell
from ptychopinn.forward import cut_windows, power
from ptychopinn.interpolation import ShiftedProbe, split_positions
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.parallel import spread
from ptychopinn.typing import BoolArray, ComplexArray, FloatArray, IntArray

Sparse: TypeAlias = Any  # scipy's sparse arrays, which it does not type
_BATCH_VALUES = 1 << 18  # complex values of exit waves handled at a time: with fewer, threads wait for each other
_BRIGHT = 5e4  # photons a pattern, below which a quarter of the pixels tells slow phases less well than all
_MOST_CELLS = 96  # along a side: slow means slow, and the cost is bounded
_STIFFNESS = 1e-3  # of the second differences, in units of the mean weight of a node
_ANCHOR = 1e-6  # the same of the phase itself: its mean is no matter of the patterns
_ROWS = 64
_CELL = 0.7  # in mean distances of positions: patterns are taken one from each cell


def slow_phase(
    data: ScanDataset,
    obj: ComplexArray,
    origin: tuple[int, int],
    probe: ComplexArray,
    *,
    monitor: Monitor = NULL_MONITOR,
) -> FloatArray | None:
    """The smooth phase that an object lacks.

    Parameters
    ----------
    data:
        The scan; where it is dense, one pattern is used for each node of the splines. Bad pixels say nothing.
    obj:
        (H, W) complex64.
    origin:
        (y, x): pixel (0, 0) of ``obj`` in the frame of the positions.
    probe:
        (modes, N, N) complex64, in counts.
    monitor:
        Asked at every batch.

    Returns
    -------
    (H, W) float32 in rad, of mean 0 over the positions: multiply the object by ``exp(i phase)``. None if cancelled, or
    if the patterns say nothing about it.
    """
    local = data.positions - np.asarray(origin)
    low, extent = local.min(axis=0), np.maximum(np.ptp(local, axis=0), 1.0)
    across = np.maximum(np.round(np.sqrt(len(local) * extent / extent[::-1])), 1)  # positions along each side
    between = float((extent / across).max())
    spacing = max(between, _width(probe), float(extent.max()) / _MOST_CELLS)
    chosen = one_a_cell(local, spacing if _CELL * spacing > between else _CELL * between)
    gradients = _gradients(data, obj, local, probe, chosen, monitor)
    if gradients is None:
        return None
    hessian, slope = gradients
    weight = float(np.trace(hessian, axis1=1, axis2=2).mean())
    if not (np.isfinite(weight) and weight > 0 and np.isfinite(slope).all()):
        return None
    nodes = np.ceil(extent / spacing).astype(int) + 6  # splines reach two nodes further
    first = low - 2 * spacing
    (values_y, slopes_y), (values_x, slopes_x) = (
        _splines((local[chosen, k] - first[k]) / spacing, int(nodes[k])) for k in (0, 1)
    )
    along = [_products(slopes_y, values_x) / spacing, _products(values_y, slopes_x) / spacing]
    matrix = sum(along[a].T @ sparse.diags_array(hessian[:, a, b]) @ along[b] for a in (0, 1) for b in (0, 1))
    stiff = [sparse.diags_array([1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(n - 2, n)) for n in nodes]
    eyes = [sparse.eye(n) for n in nodes]
    bending = sparse.vstack([sparse.kron(stiff[0], eyes[1]), sparse.kron(eyes[0], stiff[1])])
    scale = float(matrix.diagonal().mean())
    matrix = matrix + scale * (_STIFFNESS * (bending.T @ bending) + _ANCHOR * sparse.eye(matrix.shape[0]))
    coefficients = spsolve(matrix.tocsc(), along[0].T @ slope[:, 0] + along[1].T @ slope[:, 1]).reshape(nodes)
    mean = float((_products(values_y, values_x) @ coefficients.ravel()).mean())
    rows, columns = (
        _splines((np.arange(size) - first[k]) / spacing, int(nodes[k]))[0] for k, size in enumerate(obj.shape)
    )
    phase = np.empty(obj.shape, np.float32)
    for low in range(0, len(phase), _ROWS):  # the object may be large
        phase[low : low + _ROWS] = rows[low : low + _ROWS] @ coefficients @ columns.T - mean
    return phase


def turn(obj: ComplexArray, phase: FloatArray, where: BoolArray | None = None) -> None:
    """Multiply an object by ``exp(i phase)``, in place.

    Parameters
    ----------
    obj:
        (H, W) complex64, changed.
    phase:
        (H, W) float32, rad.
    where:
        (H, W) bool, pixels to turn; None for all.
    """
    for low in range(0, len(obj), _ROWS):  # the object may be large
        block = slice(low, low + _ROWS)
        # By parts: the exponential of a complex number takes ten times as long.
        factor = np.empty(phase[block].shape, np.complex64)
        factor.real, factor.imag = np.cos(phase[block]), np.sin(phase[block])
        if where is not None:
            factor[~where[block]] = 1
        obj[block] *= factor


def _width(probe: ComplexArray) -> float:
    """Root mean square diameter of the light along one axis: what lies closer together sees the same."""
    power = (np.abs(probe) ** 2).sum(axis=0)
    r = np.arange(probe.shape[-1]) - (probe.shape[-1] - 1) / 2
    radius2 = (power * (r[:, None] ** 2 + r[None, :] ** 2)).sum() / power.sum()
    return float(np.sqrt(2 * radius2))


def _gradients(
    data: ScanDataset, obj: ComplexArray, local: FloatArray, probe: ComplexArray, chosen: IntArray, monitor: Monitor
) -> tuple[FloatArray, FloatArray] | None:
    """(k, 2, 2) and (k, 2) float64: ``H`` and ``b`` of the module's text; None if cancelled."""
    corners, fractions = split_positions(local, data.N)
    shifted = ShiftedProbe(probe.astype(np.complex64))
    bright = float((np.abs(probe) ** 2).sum()) >= _BRIGHT
    stride = 2 if bright and data.N % 4 == 0 else 1  # with 4, DC is among what is seen
    half = data.N // stride
    axis = np.arange(half, dtype=np.float32)  # what all pixels have in common changes nothing
    good = np.fft.ifftshift(~data.bad_pixels)[::stride, ::stride].astype(np.float32)
    hessian, slope = np.zeros((len(chosen), 2, 2)), np.zeros((len(chosen), 2))
    step = max(_BATCH_VALUES // probe.size, 1)

    def measure(start: int) -> None:
        if monitor.cancelled:
            return
        part = slice(start, start + step)
        batch = chosen[part]
        waves = shifted(fractions[batch])
        waves *= cut_windows(obj, corners[batch], data.N)[:, None]
        # x times the wave, folded: x of the first half times the folded wave, and what the rest is further on.
        by_y, by_x = (_folded(waves, axes, stride) for axes in ((-1,), (-2,)))
        rest = [by_y[..., half:, :], by_x[..., half:]]
        folded = _folded(by_y, (-2,), stride)
        field = scipy.fft.fft2(folded) / np.float32(data.N)
        modelled = np.sqrt(power(field))
        measured = np.fft.ifftshift(data.counts(batch)[:, ::stride, ::stride], axes=(1, 2))
        missing = np.sqrt(measured)
        missing -= modelled
        modelled += np.float32(1e-6) * modelled.max() + np.finfo(np.float32).tiny
        weight = good / (modelled * np.float32(data.N))
        jacobian = np.empty((len(batch), 2, half**2), np.float32)
        for k, along in enumerate((axis[:, None], axis[None, :])):
            lever = folded * along
            if stride > 1:
                lever += np.float32(half) * rest[k]
            moved = scipy.fft.fft2(lever, overwrite_x=True)
            change = (field.imag * moved.real - field.real * moved.imag).sum(axis=1)  # of i times it
            np.multiply(change, weight, out=jacobian[:, k].reshape(change.shape))
        hessian[part] = np.einsum("bap,bcp->bac", jacobian, jacobian)
        slope[part] = np.einsum("bap,bp->ba", jacobian, missing.reshape(len(batch), -1))

    spread(measure, range(0, len(chosen), step))
    return None if monitor.cancelled else (hessian, slope)


def _folded(waves: ComplexArray, axes: tuple[int, ...], stride: int) -> ComplexArray:
    """Both halves along some axes added: its transform is every second frequency of what was folded, exactly."""
    if stride > 1:
        for axis in axes:
            first, second = np.split(waves, 2, axis=axis)
            waves = first + second
    return waves


def _splines(t: FloatArray, nodes: int) -> tuple[Sparse, Sparse]:
    """(n, nodes) sparse values, and slopes a node, of cubic B-splines at ``t`` nodes from the first."""
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
    """(n, p q) sparse: the products of row j of a (n, p) with row j of b (n, q); four entries in each row of both."""
    n = a.shape[0]
    columns = a.indices.reshape(n, 4, 1) * b.shape[1] + b.indices.reshape(n, 1, 4)
    values = a.data.reshape(n, 4, 1) * b.data.reshape(n, 1, 4)
    rows = np.repeat(np.arange(n), 16)
    return sparse.csr_array((values.ravel(), (rows, columns.ravel())), (n, a.shape[1] * b.shape[1]))
