"""Stitching: true patches return the object, upright, linear, none dropped. Requirements: specs/04-stitching.md."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from ptychopinn.arrays import NUMPY
from ptychopinn.errors import DataError
from ptychopinn.geometry import Frame, split_positions
from ptychopinn.interpolation import place_on_pixels
from ptychopinn.simulate import scan_positions, simulate_object, simulate_probe
from ptychopinn.stitching import COVERED, ShiftedWeights, Stitcher, patch_weights
from ptychopinn.synchronise import measure_overlaps, overlap_pairs, solve_phases
from ptychopinn.typing import ComplexArray, FloatArray

N = 32
SIZE = 16


def weights() -> FloatArray:
    return patch_weights(simulate_probe("disc", N, photons=1e4), SIZE)


def smooth_object(kind: str = "textured", shape: tuple[int, int] = (96, 80), seed: int = 0) -> ComplexArray:
    return simulate_object(kind, shape, np.random.default_rng(seed))


def true_patches(obj: ComplexArray, positions: FloatArray, size: int = SIZE) -> ComplexArray:
    """Patches in the probe's frame, cut with an apron so that spline ends stay outside."""
    corners, fractions = split_positions(positions, size)
    windows = NUMPY.cut_windows(obj, corners - 4, size + 8)
    return place_on_pixels(windows, -fractions)[:, 4:-4, 4:-4]


def jittered(rng: np.random.Generator, shape: tuple[int, int], step: float = 4.0) -> FloatArray:
    grid = np.stack(
        np.meshgrid(np.arange(12, shape[0] - 12, step), np.arange(12, shape[1] - 12, step), indexing="ij"), axis=-1
    ).reshape(-1, 2)
    return grid + rng.uniform(-1, 1, grid.shape)


def stitch(patches: ComplexArray, positions: FloatArray, frame: Frame, phases: ComplexArray | None = None):
    stitcher = Stitcher(weights(), frame)
    stitcher.add(patches, positions, phases)
    return stitcher.result()


def inside(error: FloatArray, positions: FloatArray) -> FloatArray:
    low, high = positions.min(axis=0).astype(int) + 2, positions.max(axis=0).astype(int) - 2
    return error[low[0] : high[0], low[1] : high[1]]


@pytest.mark.parametrize(("kind", "tolerance"), [("textured", 0.02), ("discs_bars", 0.02), ("letter", 0.05)])
def test_true_patches_return_the_object(kind: str, tolerance: float) -> None:
    """[STITCH-001] within 2% of the object at fractional positions, 5% where its edges are one pixel sharp."""
    rng = np.random.default_rng(3)
    obj = smooth_object(kind)
    positions = jittered(rng, obj.shape)
    result = stitch(true_patches(obj, positions), positions, Frame(obj.shape))
    error = inside(result.object - obj, positions)
    assert np.linalg.norm(error) < tolerance * np.linalg.norm(inside(obj, positions))
    assert (result.placed, result.dropped) == (len(positions), 0)


def test_asymmetric_object_is_upright() -> None:
    """[STITCH-002] no flip, transpose or half-pixel shift: every wrong orientation is far worse."""
    obj = smooth_object("letter", (96, 96))
    positions = jittered(np.random.default_rng(0), obj.shape)
    found = stitch(true_patches(obj, positions), positions, Frame(obj.shape)).object
    right = np.linalg.norm(inside(found - obj, positions))
    for wrong in (obj.T, obj[::-1], obj[:, ::-1], np.roll(obj, 1, axis=0), np.roll(obj, 1, axis=1)):
        assert np.linalg.norm(inside(found - wrong, positions)) > 5 * right


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_random_phases_are_solved(seed: int) -> None:
    """[SYNC-001] true patches, each turned by a random phase, return the object up to one phase."""
    rng = np.random.default_rng(seed)
    obj = smooth_object(seed=seed)
    positions = jittered(rng, obj.shape)
    patches = true_patches(obj, positions)
    turned = patches * np.exp(2j * np.pi * rng.random(len(patches)))[:, None, None].astype(np.complex64)
    corners, fractions = split_positions(positions, SIZE)
    phases = solve_phases(measure_overlaps(place_on_pixels(turned, fractions), corners, weights()))
    np.testing.assert_allclose(np.abs(phases), 1, rtol=1e-9)
    found = inside(stitch(turned, positions, Frame(obj.shape), phases).object, positions)
    truth = inside(obj, positions)
    found = found * np.exp(-1j * np.angle(np.vdot(truth, found)))
    assert np.linalg.norm(found - truth) < 0.03 * np.linalg.norm(truth)


def fly_scan() -> FloatArray:
    """Rows 4 px apart, patterns every quarter pixel along them: the ten nearest of a pattern lie in its own row."""
    return np.stack(np.meshgrid(np.arange(14.0, 34, 4), np.arange(14.0, 30, 0.25), indexing="ij"), -1).reshape(-1, 2)


def repeated_frames() -> FloatArray:
    """Twelve frames at every position."""
    return np.repeat(jittered(np.random.default_rng(0), (36, 36)), 12, axis=0)


def one_line() -> FloatArray:
    """Two crowds on a diagonal: the ten nearest of a pattern lie in its own."""
    return 14 + np.r_[np.arange(12) / 8, np.arange(12) / 8 + 5][:, None] * np.ones(2)


@pytest.mark.parametrize("places", [fly_scan, repeated_frames, one_line])
def test_patches_are_linked_in_every_direction(places: Callable[[], FloatArray]) -> None:
    """[SYNC-008] Rows of a fly scan, repeated frames, a line: whatever overlaps is one part, its phases are solved."""
    rng = np.random.default_rng(4)
    positions = rng.permutation(places())
    patches = true_patches(smooth_object(shape=(50, 50)), positions)
    turn = np.exp(2j * np.pi * rng.random(len(patches)))
    corners, fractions = split_positions(positions, SIZE)
    placed = place_on_pixels((patches * turn[:, None, None]).astype(np.complex64), fractions)
    overlaps = measure_overlaps(placed, corners, weights())
    assert len(np.unique(overlaps.components)) == 1
    left = np.angle(solve_phases(overlaps) * turn.conj() * np.exp(1j))
    assert np.abs(np.angle(np.exp(1j * (left - left[0])))).max() < 0.05


def test_pairs_of_many_patches_are_those_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """[SYNC-008] Triangulated piece by piece, what is near stays connected; a patch has about as many links."""
    corners = np.random.default_rng(5).permutation(split_positions(fly_scan(), SIZE)[0] * 2)
    whole = overlap_pairs(corners, 16)
    monkeypatch.setattr("ptychopinn.synchronise._LINKED_TOGETHER", 16)
    pieces = overlap_pairs(corners, 16)
    for pairs in (whole, pieces):
        assert (pairs[:, 0] < pairs[:, 1]).all()
        assert len(np.unique(pairs, axis=0)) == len(pairs) < 14 * len(corners)
        assert np.abs(corners[pairs[:, 0]] - corners[pairs[:, 1]]).max() < 12
        links = csr_matrix((np.ones(len(pairs)), pairs.T), shape=(len(corners), len(corners)))
        assert connected_components(links, directed=False)[0] == 1


def bright_mean(patches: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """Of each patch, once its phase is taken off, where the probe is bright."""
    return (patches / phases[:, None, None] * weights() ** 4).sum(axis=(1, 2))


def test_unconnected_parts_have_a_real_and_positive_mean() -> None:
    """[SYNC-002] two parts without overlap, whose patches come with any phases."""
    obj = smooth_object(shape=(64, 200))
    one = np.stack(np.meshgrid([20.0, 24, 28], [20.0, 24, 28], indexing="ij"), axis=-1).reshape(-1, 2)
    positions = np.concatenate([one, one + np.array([0.0, 120.0])])
    rng = np.random.default_rng(0)
    patches = true_patches(obj, positions)
    spread = np.exp(1j * rng.uniform(-np.pi, np.pi, len(patches)))
    corners, fractions = split_positions(positions, SIZE)
    placed = place_on_pixels((patches * spread[:, None, None]).astype(np.complex64), fractions)
    overlaps = measure_overlaps(placed, corners, weights())
    assert len(np.unique(overlaps.components)) == 2
    means = bright_mean(placed, solve_phases(overlaps))
    for part in (slice(0, 9), slice(9, 18)):
        assert abs(np.angle(means[part].sum())) < 1e-5


def test_patches_that_hardly_overlap_lie_level(caplog: pytest.LogCaptureFixture) -> None:
    """[SYNC-002] The object is that of patches without their phases, not a patchwork of random ones."""
    obj = smooth_object()
    positions = np.stack(np.meshgrid(np.arange(20.0, 180, 28), np.arange(20.0, 180, 28)), axis=-1).reshape(-1, 2)
    turn = np.exp(1j * np.random.default_rng(1).uniform(-np.pi, np.pi, len(positions)))
    corners, fractions = split_positions(positions, SIZE)
    placed = place_on_pixels((true_patches(obj, positions) * turn[:, None, None]).astype(np.complex64), fractions)
    with caplog.at_level("INFO", logger="ptychopinn"):
        phases = solve_phases(measure_overlaps(placed, corners, weights()))
    assert f"{len(positions)} parts of the scan do not overlap" in caplog.text
    assert np.abs(np.angle(bright_mean(placed, phases))).max() < 1e-5


@pytest.mark.parametrize("count", [1, 2])
def test_few_patches(count: int) -> None:
    """[SYNC-003] one patch and two patches need no special case."""
    positions = np.array([[30.0, 30.0], [33.0, 31.5]])[:count]
    patches = true_patches(smooth_object(), positions)
    corners, fractions = split_positions(positions, SIZE)
    phases = solve_phases(measure_overlaps(place_on_pixels(patches, fractions), corners, weights()))
    assert phases.shape == (count,)
    np.testing.assert_allclose(np.abs(phases), 1)


def test_tether_holds_the_patches_level() -> None:
    """[SYNC-004] a strong tether leaves each patch a real and positive mean; none lets the overlaps decide."""
    obj = smooth_object()
    rng = np.random.default_rng(1)
    positions = jittered(rng, obj.shape, step=6)
    turn = np.exp(1j * rng.uniform(-1, 1, len(positions)))
    patches = (true_patches(obj, positions) * turn[:, None, None]).astype(np.complex64)
    corners, fractions = split_positions(positions, SIZE)
    placed = place_on_pixels(patches, fractions)
    overlaps = measure_overlaps(placed, corners, weights())
    assert np.abs(np.angle(bright_mean(placed, solve_phases(overlaps, tether=1e4)))).max() < 0.01
    free = np.angle(solve_phases(overlaps) * turn.conj())
    assert np.std(free) < 0.05


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), split=st.integers(0, 50))
def test_linear_and_order_free(seed: int, split: int) -> None:
    """[STITCH-003] linear in the patches, and the same in any order and any batches."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(15, 45, (50, 2))
    parts = rng.standard_normal((2, 2, 50, SIZE, SIZE)).astype(np.float32)
    patches = parts[0] + 1j * parts[1]
    frame = Frame((60, 60))
    a, b = (stitch(p, positions, frame) for p in patches)
    both = stitch(2 * patches[0] - patches[1], positions, frame)
    covered = a.covered
    np.testing.assert_allclose(both.object[covered], (2 * a.object - b.object)[covered], atol=1e-3)
    order = rng.permutation(50)
    parts = Stitcher(weights(), frame)
    for chosen in (order[:split], order[split:]):
        parts.add(patches[0][chosen], positions[chosen])
    np.testing.assert_allclose(parts.result().object, a.object, atol=1e-4)


def test_uncovered_is_one_and_dropped_is_counted() -> None:
    """[STITCH-004] what no pattern covers is 1 + 0j, the coverage says where; patches outside are counted."""
    frame = Frame((64, 64))
    positions = np.array([[20.0, 20.0], [500.0, 20.0]])
    result = stitch(np.full((2, SIZE, SIZE), 2 - 1j, np.complex64), positions, frame)
    assert (result.placed, result.dropped) == (1, 1)
    assert result.object[60, 60] == 1
    assert result.coverage[60, 60] <= COVERED
    np.testing.assert_allclose(result.object[20, 20], 2 - 1j, atol=1e-5)


def test_frame_around_holds_every_patch_and_refuses_metres() -> None:
    """[STITCH-005] the frame without objectGuess is the box of patches; absurd positions are refused."""
    positions = scan_positions("jittered", rows=5, cols=4, step_px=3.0, jitter_px=1.0, rng=np.random.default_rng(0))
    frame = Frame.around(positions, SIZE)
    corners, _ = split_positions(positions, SIZE)
    local = corners - np.array(frame.origin)
    assert local.min() == 0
    assert (local + SIZE <= np.array(frame.shape)).all()
    with pytest.raises(DataError, match="object pixels"):
        Frame.around(np.array([[0.0, 0.0], [1e9, 1e9]]), SIZE)


@pytest.mark.parametrize(("size", "wide"), [(64, 59), (64, 49), (128, 114), (128, 122), (256, 250)])
def test_light_of_any_width(size: int, wide: int) -> None:
    """[SYNC-001] Pixels are skipped in wide patches, whether or not the width of the light is a multiple of that."""
    rng = np.random.default_rng(1)
    light = np.zeros((size, size), np.float32)
    light[1 : 1 + wide, 3 : 3 + wide] = 1
    corners = rng.integers(0, size // 4, (9, 2))
    turn = np.exp(2j * np.pi * rng.random(9))
    patches = NUMPY.cut_windows(smooth_object(shape=(2 * size, 2 * size)), corners, size) * turn[:, None, None]
    phases = solve_phases(measure_overlaps(patches.astype(np.complex64), corners, light)) * turn.conj()
    assert np.abs(np.angle(phases * phases[0].conj())).max() < 1e-3


@pytest.mark.parametrize("size", [16, 64])
def test_overlaps_are_inner_products_whatever_the_tiles(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """[SYNC-001] The same in one tile and in many; of wide patches, the pixels looked at tell the same phase."""
    rng = np.random.default_rng(2)
    step = size / 3
    positions = jittered(rng, (int(12 * step), int(10 * step)), step)
    smooth = np.exp(-(((np.arange(size) - (size - 1) / 2) / (size / 3)) ** 2))
    light = np.outer(smooth, smooth).astype(np.float32)
    obj = smooth_object(shape=(int(14 * step) + size, int(12 * step) + size))
    corners, _ = split_positions(positions, size)
    turn = np.exp(2j * np.pi * rng.random(len(corners)))
    patches = (NUMPY.cut_windows(obj, corners + size, size) * turn[:, None, None]).astype(np.complex64)
    one = measure_overlaps(patches, corners, light)
    monkeypatch.setattr("ptychopinn.synchronise._TILE_VALUES", 3 * size**2)
    many = measure_overlaps(patches, corners, light)
    assert (one.matrix != one.matrix.conj().T).nnz == 0
    np.testing.assert_allclose(many.matrix.toarray(), one.matrix.toarray(), rtol=1e-5, atol=1e-6)
    for j, k in zip(*one.matrix.nonzero(), strict=True):
        dy, dx = corners[k] - corners[j]
        a = (slice(max(dy, 0), size + min(dy, 0)), slice(max(dx, 0), size + min(dx, 0)))
        b = (slice(max(-dy, 0), size + min(-dy, 0)), slice(max(-dx, 0), size + min(-dx, 0)))
        exact = (light[a] ** 2 * light[b] ** 2 * patches[j][a] * patches[k][b].conj()).sum()
        found = one.matrix[j, k]
        assert abs(np.angle(found * np.conj(exact))) < (1e-4 if size == 16 else 0.05)
        assert abs(found) * max(size // 32, 1) ** 2 == pytest.approx(abs(exact), rel=1e-4 if size == 16 else 0.1)
    phases = solve_phases(one) * turn.conj()
    assert np.abs(np.angle(phases * np.conj(phases.mean()))).max() < 0.02


def test_patches_whose_light_does_not_meet_do_not_overlap() -> None:
    """[SYNC-002] A narrow probe in wide patches."""
    corners = np.array([[0, 0], [0, 3], [0, 12], [10, 0]])
    light = np.zeros((16, 16), np.float32)
    light[5:11, 5:11] = 1
    overlaps = measure_overlaps(np.ones((4, 16, 16), np.complex64), corners, light)
    expected = [[36, 18, 0, 0], [18, 36, 0, 0], [0, 0, 36, 0], [0, 0, 0, 36]]
    np.testing.assert_allclose(overlaps.matrix.toarray(), expected)
    assert len(np.unique(overlaps.components)) == 3


def test_weights_at_fractions_are_those_of_the_splines() -> None:
    """[STITCH-003] Few factors give what the matrices give."""
    fractions = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 2))
    light = weights()
    placed = place_on_pixels(np.tile(light, (20, 1, 1)).astype(np.complex64), fractions).real
    found = ShiftedWeights(light).at(fractions)
    np.testing.assert_allclose(found, np.maximum(placed, 0), atol=2e-6)


def test_an_object_grows() -> None:
    """[STREAM-010] What was added stays where it is, in any larger frame."""
    rng = np.random.default_rng(0)
    positions = rng.uniform(20, 40, (8, 2))
    patches = rng.standard_normal((8, SIZE, SIZE)).astype(np.complex64)
    whole = stitch(patches, positions, Frame((70, 60), (-5, -3)))
    parts = Stitcher(weights(), Frame.around(positions[:4], SIZE))
    parts.add(patches[:4], positions[:4])
    parts.grow(Frame((70, 60), (-5, -3)))
    parts.add(patches[4:], positions[4:])
    np.testing.assert_allclose(parts.result().object, whole.object, atol=1e-5)
    np.testing.assert_allclose(parts.take_result().coverage, whole.coverage, atol=1e-6)
