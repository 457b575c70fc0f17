"""One phase a patch, solved from the overlaps.

A pattern does not change when its object is multiplied by a phase, so a network cannot know the phase of a patch, and
averaging patches that disagree destroys the object. With overlaps ``H_jk = sum sqrt(u_j u_k) O_j conj(O_k)`` (u a power
of the probe's intensity; diagonal kept: a Gram matrix), the phases v that agree best maximise ``v^H H v`` with
``|v_j| = 1``: start from a maximum spanning tree of coherences, then iterate ``v <- H v / |H v|``. Sources: Singer,
Appl. Comput. Harmon. Anal. 30, 20 (2011); Boumal, SIAM J. Optim. 26, 2355 (2016).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from ptychopinn.typing import AnyArray, ComplexArray, FloatArray, IntArray

_log = logging.getLogger(__name__)
_NEIGHBOURS = 10  # overlaps taken a patch: more change the phases by less than the patches' own noise
_SHARPNESS = 4  # power of the probe's intensity in an overlap: a patch is sure of itself only where the probe is bright
_ITERATIONS = 200
_CONVERGED_RAD = 1e-4
_CHUNK = 4096  # pairs whose overlaps are multiplied at a time


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Inner products of overlapping patches.

    Attributes
    ----------
    matrix:
        (n, n) sparse Hermitian complex128 with its diagonal.
    components:
        (n,) int: patches that no chain of overlaps connects have different numbers.
    """

    matrix: sparse.csr_matrix
    components: IntArray


def overlap_pairs(corners: IntArray, size: int) -> IntArray:
    """Pairs of patches that overlap by a quarter or more of their width, the nearest ones of each patch.

    Parameters
    ----------
    corners:
        (n, 2) int (y, x).
    size:
        Width of a patch.

    Returns
    -------
    (k, 2) int64, first below second, each pair once; sorted by offset, so that equal offsets lie together.
    """
    n = len(corners)
    if n < 2:
        return np.zeros((0, 2), np.int64)
    count = min(_NEIGHBOURS, n - 1)
    _, near = cKDTree(corners).query(corners, k=count + 1, p=np.inf, distance_upper_bound=0.75 * size)
    first = np.repeat(np.arange(n), count + 1)
    second = near.ravel()
    keep = (second < n) & (second != first)
    pairs = np.unique(np.sort(np.stack([first[keep], second[keep]], axis=1), axis=1), axis=0)
    offset = corners[pairs[:, 1]] - corners[pairs[:, 0]]
    return pairs[np.lexsort((offset[:, 1], offset[:, 0]))].astype(np.int64)


def measure_overlaps(placed: AnyArray, corners: IntArray, weights: FloatArray) -> Overlaps:
    """Inner products of all overlapping patches, in blocks.

    Parameters
    ----------
    placed:
        (n, size, size) complex64 on whole pixels; may be a memory map.
    corners:
        (n, 2) int (y, x).
    weights:
        (size, size) float32, `ptychopinn.stitching.patch_weights`.
    """
    n, size = len(corners), placed.shape[-1]
    sharp = weights**_SHARPNESS
    root = np.sqrt(sharp)
    pairs = overlap_pairs(corners, size)
    offsets = corners[pairs[:, 1]] - corners[pairs[:, 0]]
    values = np.zeros(len(pairs), np.complex128)
    changes = (np.diff(offsets, axis=0) != 0).any(axis=1)
    bounds: list[int] = np.flatnonzero(np.r_[True, changes, True]).tolist() if len(pairs) else []
    for start, stop in pairwise(bounds):
        dy, dx = (int(v) for v in offsets[start])
        a = (slice(max(dy, 0), size + min(dy, 0)), slice(max(dx, 0), size + min(dx, 0)))
        b = (slice(max(-dy, 0), size + min(-dy, 0)), slice(max(-dx, 0), size + min(-dx, 0)))
        window = root[a] * root[b]
        for low in range(start, stop, _CHUNK):
            chunk = pairs[low : min(low + _CHUNK, stop)]
            left = placed[(chunk[:, 0], *a)] * window
            right = placed[(chunk[:, 1], *b)]
            values[low : low + len(chunk)] = np.einsum("kyx,kyx->k", left, right.conj())
    diagonal = np.empty(n)
    for low in range(0, n, _CHUNK):
        block = np.asarray(placed[low : low + _CHUNK])
        diagonal[low : low + len(block)] = ((block.real**2 + block.imag**2) * sharp).sum(axis=(1, 2))
    rows = np.r_[pairs[:, 0], pairs[:, 1], np.arange(n)]
    columns = np.r_[pairs[:, 1], pairs[:, 0], np.arange(n)]
    matrix = sparse.csr_matrix((np.r_[values, values.conj(), diagonal], (rows, columns)), shape=(n, n))
    _, components = csgraph.connected_components(sparse.csr_matrix(np.abs(matrix)), directed=False)
    return Overlaps(matrix, components.astype(np.int64))


def solve_phases(overlaps: Overlaps, *, tether: float = 0.0) -> ComplexArray:
    """Phases that make the patches agree.

    Parameters
    ----------
    overlaps:
        From `measure_overlaps`.
    tether:
        Pull towards the patches' own phases, in units of a patch's energy; 0 trusts the overlaps alone. Over a weak
        object small errors of the overlaps add up to slow clouds; a tether holds them down.

    Returns
    -------
    (n,) complex128 of modulus 1; divide patch j by v_j. In each component the mean phase is that of the patches
    as they came, so that components agree among themselves.
    """
    matrix, components = overlaps.matrix, overlaps.components
    n = matrix.shape[0]
    diagonal = matrix.diagonal().real
    v = _tree_phases(overlaps)
    _keep_mean_phase(v, diagonal, components)
    pull = tether * diagonal
    for _ in range(_ITERATIONS):
        new = matrix @ v + pull
        size = np.abs(new)
        new = np.where(size > 0, new / np.where(size > 0, size, 1), 1)
        change = np.abs(np.angle(new * v.conj())).max() if n else 0.0
        v = new
        if change < _CONVERGED_RAD:
            break
    if tether == 0:
        _keep_mean_phase(v, diagonal, components)
    count = int(components.max()) + 1 if n else 0
    if count > 1:
        _log.info("%d parts of the scan do not overlap; their phases were set to the same mean.", count)
    return v


def _keep_mean_phase(v: ComplexArray, energy: FloatArray, components: IntArray) -> None:
    """Turn each component, in place, so that dividing by v leaves its mean phase as it was."""
    count = int(components.max()) + 1 if len(v) else 0
    mean = np.bincount(components, energy * v.real, count) + 1j * np.bincount(components, energy * v.imag, count)
    turn = np.where(np.abs(mean) > 0, mean, 1)
    v /= (turn / np.abs(turn))[components]


def _tree_phases(overlaps: Overlaps) -> ComplexArray:
    """Phases along a maximum spanning tree of coherences: no iteration can get stuck from there."""
    matrix = overlaps.matrix
    n = matrix.shape[0]
    v = np.ones(n, np.complex128)
    scale = np.sqrt(np.maximum(matrix.diagonal().real, np.finfo(float).tiny))
    upper = sparse.triu(matrix, k=1).tocoo()
    if upper.nnz == 0:
        return v
    coherence = np.abs(upper.data) / (scale[upper.row] * scale[upper.col])
    cost = sparse.csr_matrix((2.0 - np.minimum(coherence, 1.0), (upper.row, upper.col)), shape=(n, n))
    tree = csgraph.minimum_spanning_tree(cost)
    _, roots = np.unique(overlaps.components, return_index=True)
    for root in roots:
        order, parents = csgraph.breadth_first_order(tree, int(root), directed=False)
        if len(order) < 2:
            continue
        child, parent = order[1:], parents[order[1:]]
        steps = np.asarray(matrix[child, parent]).ravel()
        steps = np.where(steps == 0, 1, steps / np.maximum(np.abs(steps), np.finfo(float).tiny))
        for c, p, step in zip(child.tolist(), parent.tolist(), steps.tolist(), strict=True):
            v[c] = step * v[p]
    return v
