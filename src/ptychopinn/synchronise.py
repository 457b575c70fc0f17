"""Solve one phase per patch from the overlaps of the patches.

A pattern does not change when its object is multiplied by a phase. So a network cannot know the phase of a patch, and
the average of patches with different phases destroys the object. The overlaps are
``H_jk = sum sqrt(u_j u_k) O_j conj(O_k)``, where u is a power of the probe's intensity. With its diagonal, H is a Gram
matrix. The phases v that agree best maximise ``v^H H v`` with ``|v_j| = 1``. They start from a maximum spanning tree of
the coherences, and are iterated as ``v <- H v / |H v|``.

Sources: Singer, Appl. Comput. Harmon. Anal. 30, 20 (2011); Boumal, SIAM J. Optim. 26, 2355 (2016).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import Delaunay, cKDTree

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary, slices_of
from ptychopinn.parallel import spread
from ptychopinn.patch_store import PlacedPatches
from ptychopinn.typing import BoolArray, ComplexArray, FloatArray, IntArray

_log = logging.getLogger(__name__)
_NEIGHBOURS = 10  # overlaps used per patch; more change the phases by less than the noise of the patches
_LINKED = 0.75  # maximum distance of linked patches, in patch widths; beyond it they share too few pixels
_SHARPNESS = 4  # exponent of the probe's intensity in an overlap: patches are reliable only where the probe is bright
_ITERATIONS = 200
_CONVERGED_RAD = 1e-4
_CHECK_EVERY = 5  # iterations between two checks of convergence
_MIN_SHARED = 0.1  # minimum fraction of a patch's energy on the known object, for its phase to be taken from there
_LINKED_TOGETHER = 1 << 12  # places that a thread links at a time
_FAINT = 1e-3  # pixels where the root of the weight (maximum 1) is smaller are ignored
_SAMPLES, _MIN_SAMPLES = 32, 16  # pixels along a side of an overlap, and at least so many across the bright part
_TILE_VALUES = 1 << 21  # values of patches processed together


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Inner products of overlapping patches."""

    matrix: sparse.csr_matrix  # (n, n) sparse Hermitian complex128 with its diagonal
    components: IntArray  # (n,) int, number of the connected component that each patch belongs to
    # (n,) complex128 in an arbitrary common unit: mean of each patch where the probe is bright; 0 if unknown.
    means: ComplexArray


def overlap_pairs(corners: IntArray, size: int) -> IntArray:
    """Pairs of patches that overlap by at least a quarter of their width: the nearest ones, in every direction.

    A place is linked with its nearest places, and along the edges of a Delaunay triangulation, because the nearest
    places may all be in one row. If a place has several patches, each of them is paired with one patch at every linked
    place, and with the next patch at its own place. Time and memory are linear in the number of patches.

    (n, 2) int corners (y, x) of patches of one width to (k, 2) int64, first below second, each pair once, sorted.
    """
    n = len(corners)
    places, place, patches = np.unique(corners, axis=0, return_inverse=True, return_counts=True)
    links = _linked_places(places, _LINKED * size)
    by_place = np.argsort(place.reshape(-1), kind="stable")
    starts = np.cumsum(patches) - patches
    paired = patches[links].max(axis=1)
    link = np.repeat(links, paired, axis=0)
    turn = np.arange(len(link)) - np.repeat(np.cumsum(paired) - paired, paired)
    across = by_place[starts[link] + turn[:, None] % patches[link]]
    along = np.stack([by_place[:-1], by_place[1:]], axis=1)
    along = along[place.reshape(-1)[along[:, 0]] == place.reshape(-1)[along[:, 1]]]
    return _each_once(np.concatenate([across, along]), n)


def _each_once(pairs: IntArray, n: int) -> IntArray:
    """(k, 2) pairs of different numbers below n, the smaller first, each once, sorted."""
    keys = np.sort(np.minimum(pairs[:, 0], pairs[:, 1]) * n + np.maximum(pairs[:, 0], pairs[:, 1]))
    return np.stack(np.divmod(keys[np.diff(keys, prepend=-1) != 0], max(n, 1)), axis=1)


def _linked_places(places: IntArray, reach: float) -> IntArray:
    """(k, 2) pairs of (m, 2) different places that are nearer than ``reach`` along either axis."""
    m = len(places)
    links = [_triangle_edges(places, reach)]
    if m > 1:
        tree = cKDTree(places)
        links += spread(partial(_nearest, tree, reach), slices_of(m, _LINKED_TOGETHER))
    return _each_once(np.concatenate(links), m)


def _nearest(tree: cKDTree, reach: float, part: slice) -> IntArray:
    """(k, 2) links of some places of a tree with their nearest ones."""
    count = min(_NEIGHBOURS + 1, tree.n)  # a place is its own nearest
    first = np.arange(part.start, part.stop)
    _, near = tree.query(tree.data[part], k=count, p=np.inf, distance_upper_bound=reach)
    a, b = np.repeat(first, count), near.ravel()
    keep = (b < tree.n) & (b != a)
    return _each_once(np.stack([a[keep], b[keep]], axis=1), tree.n)


def _triangle_edges(places: IntArray, reach: float) -> IntArray:
    """(k, 2) edges shorter than ``reach`` of Delaunay triangulations of overlapping strips of places.

    A triangulation contains a shortest spanning tree, so places that steps below ``reach`` connect stay connected.
    """
    m = len(places)
    long = int(np.ptp(places, axis=0).argmax()) if m else 0
    order = np.lexsort((places[:, 1 - long], places[:, long]))
    position = places[order, long]

    def edges_of(part: slice) -> IntArray:
        stop = min(int(np.searchsorted(position, position[part.stop - 1] + reach)), part.stop + _LINKED_TOGETHER)
        strip = order[part.start : stop]
        edges: IntArray = strip[_delaunay(places[strip])]
        short: BoolArray = np.abs(places[edges[:, 0]] - places[edges[:, 1]]).max(axis=1) < reach
        return edges[short]

    return np.concatenate([np.zeros((0, 2), np.int64), *spread(edges_of, slices_of(m, _LINKED_TOGETHER))])


def _delaunay(places: IntArray) -> IntArray:
    """(k, 2) edges of a triangulation of different places in ascending order; if they are collinear, of the line."""
    away = places - places[0]
    if not (away[:, 0] * away[-1, 1] - away[:, 1] * away[-1, 0]).any():
        return np.stack([np.arange(len(places) - 1), np.arange(1, len(places))], axis=1)
    corners = Delaunay(away).simplices.astype(np.int64)
    return np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])


def measure_overlaps(
    placed: PlacedPatches,
    corners: IntArray,
    weights: FloatArray,
    library: ArrayLibrary = NUMPY,
    pairs: IntArray | None = None,
) -> Overlaps:
    """Inner products of all overlapping patches, computed in tiles of neighbouring patches.

    Of patches wider than 32 pixels only every second (fourth, ...) pixel is used, unless the probe is narrow. One phase
    needs no more.

    Parameters
    ----------
    placed:
        (n, size, size) complex64 on whole pixels. Memory is needed for some tiles and for the table of pairs.
    corners:
        (n, 2) int64 (y, x) on the host. Several scans of one object share one frame, and may overlap.
    weights:
        (size, size) float32 on the host, `ptychopinn.stitching.patch_weights`.
    pairs:
        Result of `overlap_pairs`, if it was computed already.
    """
    n, size = len(corners), placed.shape[-1]
    sampler = _OverlapSampler(corners, weights, library)
    linked_pairs = overlap_pairs(corners, size) if pairs is None else pairs
    values, diagonal, means = np.zeros(len(linked_pairs), np.complex128), np.zeros(n), np.zeros(n, np.complex128)
    tile_of, tiles = _tiles(corners, size, library.batch_length(size**2, _TILE_VALUES))
    by_tile = np.argsort(tile_of[linked_pairs[:, 0]], kind="stable")
    bounds = np.searchsorted(tile_of[linked_pairs[by_tile, 0]], np.arange(tiles + 1))
    members = np.argsort(tile_of, kind="stable")
    member_bounds = np.searchsorted(tile_of[members], np.arange(tiles + 1))

    def measure(tile: int) -> None:
        chosen = by_tile[bounds[tile] : bounds[tile + 1]]
        linked = linked_pairs[chosen]
        own = members[member_bounds[tile] : member_bounds[tile + 1]]
        needed = np.union1d(own, linked)
        patches = placed[needed]
        block = sampler.sample(patches, needed)
        mine = np.searchsorted(needed, own)
        diagonal[own] = library.to_host(sampler.energies(block))[mine]
        means[own] = library.to_host(sampler.means(patches))[mine]
        values[chosen] = sampler.products(block, needed, linked)

    library.spread(measure, range(tiles))
    return overlaps_of(linked_pairs, values, diagonal, means)


def overlaps_of(pairs: IntArray, values: ComplexArray, diagonal: FloatArray, means: ComplexArray) -> Overlaps:
    """Overlaps out of the inner products of (k, 2) pairs, (k,), and the energies and means of n patches."""
    n, nonzero = len(means), values != 0
    first, second = pairs[nonzero].T.astype(np.int32)
    values, own = values[nonzero], np.arange(n, dtype=np.int32)
    rows, columns = np.concatenate([first, second, own]), np.concatenate([second, first, own])
    matrix = sparse.csr_matrix((np.concatenate([values, values.conj(), diagonal]), (rows, columns)), shape=(n, n))
    links = sparse.csr_matrix((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
    _, components = csgraph.connected_components(links, directed=False)
    return Overlaps(matrix, components.astype(np.int64), means)


def _tiles(corners: IntArray, size: int, patches: int) -> tuple[IntArray, int]:
    """(n,) number of each patch's tile, and number of tiles: squares of the object with about ``patches`` patches."""
    if len(corners) == 0:
        return np.zeros(0, np.int64), 0
    extent = np.ptp(corners, axis=0) + size
    side = max(math.sqrt(float(extent[0]) * float(extent[1]) * max(patches, 1) / len(corners)), size)
    cells = ((corners - corners.min(axis=0)) // side).astype(np.int64)
    across = int(cells[:, 1].max()) + 1
    used, tile_of = np.unique(cells[:, 0] * across + cells[:, 1], return_inverse=True)
    return tile_of.reshape(-1), len(used)


class _OverlapSampler:
    """Patches on the pixels of the object whose row and column are multiples of a stride."""

    def __init__(self, corners: IntArray, weights: FloatArray, library: ArrayLibrary) -> None:
        root = weights ** (_SHARPNESS / 2)
        bright = np.flatnonzero((np.maximum(root, root.T) > _FAINT).any(axis=0))
        low, high = (int(bright[0]), int(bright[-1]) + 1) if len(bright) else (0, len(root))
        self._library = library
        self._bright = slice(low, high)  # the weight is negligible outside
        root = root[self._bright, self._bright]
        self.stride = stride = max(min(len(weights) // _SAMPLES, len(root) // _MIN_SAMPLES), 1)
        self._size = len(root) // stride
        self._root = library.from_host(root)
        self._thin_weights = library.from_host(root[::stride, ::stride] ** 2)
        self._skipped = -(corners + low) % stride  # pixels of each patch before the first one of the grid
        self._corners = (corners + low + self._skipped) // stride

    def sample(self, patches: Array, indices: IntArray) -> Array:
        """(m, size, size) patches to (m, s, s) samples, multiplied by the root of their weight."""
        library, stride, size = self._library, self.stride, self._size
        patches = patches[:, self._bright, self._bright]
        if stride == 1:
            return patches * self._root
        sampled = library.zeros((len(indices), size, size), "complex64")
        skipped = self._skipped[indices]
        for y in range(stride):
            for x in range(stride):
                of = np.flatnonzero((skipped[:, 0] == y) & (skipped[:, 1] == x))
                root = self._root[y::stride, x::stride][:size, :size]
                thin = library.take(patches[:, y::stride, x::stride][:, :size, :size], of) * root
                sampled = library.put(sampled, library.from_host(of), thin)
        return sampled

    def energies(self, block: Array) -> Array:
        """(m,) float32: sums of squares of samples."""
        xp = self._library.xp
        return xp.sum(xp.real(block) ** 2 + xp.imag(block) ** 2, axis=(1, 2))

    def means(self, patches: Array) -> Array:
        """(m, size, size) patches to (m,) complex64: weighted sums, over every ``stride``-th pixel."""
        thin = slice(None, None, self.stride)
        return self._library.xp.sum(
            patches[:, self._bright, self._bright][:, thin, thin] * self._thin_weights, axis=(1, 2)
        )

    def products(self, block: Array, indices: IntArray, pairs: IntArray) -> ComplexArray:
        """(k,) complex128 on the host: inner products of samples over the overlaps of (k, 2) pairs."""
        library = self._library
        first, second = (np.searchsorted(indices, pairs[:, k]) for k in (0, 1))
        offsets = self._corners[pairs[:, 1]] - self._corners[pairs[:, 0]]
        given = (library.from_host(array) for array in (first, second, offsets))
        values: ComplexArray = library.to_host(library.shifted_products(block, *given)).astype(np.complex128)
        return values


def solve_phases(
    overlaps: Overlaps, *, tether: float = 0.0, start: ComplexArray | None = None, library: ArrayLibrary = NUMPY
) -> ComplexArray:
    """Solve for the phases with which the patches agree best.

    Parameters
    ----------
    tether:
        Strength, in units of a patch's energy, of a pull of each patch towards a real and positive mean; 0 uses only
        the overlaps. Over a weak object small errors of the overlaps add up to slow phases. A tether limits them.
    start:
        (n,) phases to start from, for example of another tether; None starts from the tree.

    Returns
    -------
    (n,) complex128 of modulus 1 on the host; divide patch j by v_j. Then the mean of each component is real and
    positive. Neither the patterns nor the network determine the phase between components.
    """
    matrix, components, means = overlaps.matrix, overlaps.components, overlaps.means
    n = matrix.shape[0]
    diagonal = matrix.diagonal().real
    v = _tree_phases(overlaps) if start is None else start.copy()
    _remove_mean_phase(v, means, components)
    xp, multiply = library.xp, library.sparse_product(matrix)
    pull = library.from_host(tether * diagonal * _individual_phases(overlaps))
    now = library.from_host(v)
    for done in range(_ITERATIONS):
        new = multiply(now) + pull
        size = xp.abs(new)
        new = xp.where(size > 0, new, xp.ones_like(new)) / xp.where(size > 0, size, xp.ones_like(size))
        # Checked only every few iterations, because each check waits for the device.
        settled = n > 0 and done % _CHECK_EVERY == 0 and float(xp.max(xp.abs(new - now))) < _CONVERGED_RAD
        now = new
        if settled:
            break
    v = np.array(library.to_host(now))
    if tether == 0:
        _remove_mean_phase(v, means, components)
    count = int(components.max()) + 1 if n else 0
    if count > 1:
        _log.info("%d parts of the scan do not overlap; each got a real and positive mean.", count)
    return v


def _individual_phases(overlaps: Overlaps) -> ComplexArray:
    """(n,) complex128 of modulus 1: phase of each patch's mean; 1 if the mean is 0."""
    means, size = overlaps.means.copy(), np.abs(overlaps.means)
    means[size == 0], size[size == 0] = 1, 1
    means /= size
    return means


def join_phases(
    placed: ComplexArray, corners: IntArray, weights: FloatArray, known: ComplexArray, covered: BoolArray
) -> ComplexArray:
    """Phases of new patches, from their overlaps with each other and with a known object.

    The object acts as one more patch, which overlaps with many.

    Parameters
    ----------
    placed, corners, weights:
        As in `measure_overlaps`.
    known, covered:
        (n, size, size) complex64 and bool: the object in the window of each patch, and where it is known.

    Returns
    -------
    (n,) complex128 of modulus 1; divide patch j by v_j. Patches that no chain of overlaps connects with the object get
    a real and positive mean.
    """
    overlaps = measure_overlaps(placed, corners, weights)
    n = len(placed)
    sharp = weights**_SHARPNESS * covered
    own = overlaps.matrix.diagonal().real
    shared = ((placed.real**2 + placed.imag**2) * sharp).sum(axis=(1, 2))
    stride = _OverlapSampler(corners, weights, NUMPY).stride  # as in `measure_overlaps`
    links = (placed * known.conj() * sharp).sum(axis=(1, 2)) / stride**2
    links[shared < _MIN_SHARED * own * stride**2] = 0
    touched = np.flatnonzero(links)
    if len(touched) == 0:
        return solve_phases(overlaps)
    ends = np.full(len(touched), n)
    matrix = overlaps.matrix.tocoo()
    values = [matrix.data, links[touched], links[touched].conj(), [own.max()]]
    rows, columns = [matrix.row, touched, ends, [n]], [matrix.col, ends, touched, [n]]
    whole = sparse.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))))
    _, components = csgraph.connected_components(sparse.csr_matrix(np.abs(whole)), directed=False)
    v = solve_phases(Overlaps(whole, components.astype(np.int64), np.append(overlaps.means, 0)))
    joined = components[:n] == components[n]
    v[:n][joined] /= v[n]
    return v[:n]


def _remove_mean_phase(v: ComplexArray, means: ComplexArray, components: IntArray) -> None:
    """Change v in place, so that after the division by v the mean of each component is real and positive."""
    left, count = means * v.conj(), int(components.max()) + 1 if len(v) else 0
    mean = np.bincount(components, left.real, count) + 1j * np.bincount(components, left.imag, count)
    turn = np.where(np.abs(mean) > 0, mean, 1)
    v *= (turn / np.abs(turn))[components]


def _tree_phases(overlaps: Overlaps) -> ComplexArray:
    """Phases along a maximum spanning tree of coherences: a start from which the iteration does not get stuck."""
    matrix = overlaps.matrix
    n = matrix.shape[0]
    v = np.ones(n, np.complex128)
    scale = np.sqrt(np.maximum(matrix.diagonal().real, np.finfo(float).tiny))
    upper = sparse.triu(matrix, k=1).tocoo()
    if upper.nnz == 0:
        return v
    coherence = np.abs(upper.data) / (scale[upper.row] * scale[upper.col])
    cost = sparse.csr_matrix((2.0 - np.minimum(coherence, 1.0), (upper.row, upper.col)), shape=(n, n))
    # An additional root with an edge to one patch of each component makes one tree.
    _, starts = np.unique(overlaps.components, return_index=True)
    edges = csgraph.minimum_spanning_tree(cost).tocoo()
    ends = np.concatenate([edges.row, np.full(len(starts), n)]), np.concatenate([edges.col, starts])
    tree = sparse.csr_matrix((np.ones(len(ends[0])), ends), shape=(n + 1, n + 1))
    order, parents = csgraph.breadth_first_order(tree, n, directed=False)
    child, parent = order[1:], parents[order[1:]]
    inner = parent < n
    child, parent = child[inner], parent[inner]
    steps = np.asarray(matrix[child, parent]).ravel()
    steps = np.where(steps == 0, 1, steps / np.maximum(np.abs(steps), np.finfo(float).tiny))
    # Phase of each patch relative to its root, by pointer doubling.
    above = np.arange(n)
    above[child], v[child] = parent, steps
    while (above[above] != above).any():
        v *= v[above]
        above = above[above]
    return v
