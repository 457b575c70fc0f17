"""Batches of patterns and groups: specs/01-data.md, specs/04-stitching.md."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from ptychopinn.config import ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.data import batches as module
from ptychopinn.data.batches import GroupBatch, GroupBatches, read_patterns, training_subset
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ConfigError, DataError
from ptychopinn.geometry import split_positions
from ptychopinn.interpolation import shift_weights
from ptychopinn.simulate import simulate_scan

N, SIZE = 32, 16


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=N, rows=5, cols=5, seed=3))


def batches_of(scan: ScanDataset, size: int = 4, truth: Any = None, **train: Any) -> GroupBatches:
    return GroupBatches(scan, ModelConfig(N=N, group_size=size), TrainConfig(**train).resolved(on_gpu=False), truth)


def same(a: GroupBatch, b: GroupBatch) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(GroupBatch)]
    return all((x is None and y is None) or np.array_equal(x, y) for x, y in pairs)


def epoch_of(batches: GroupBatches, epoch: int) -> list[GroupBatch]:
    return [batches.batch(epoch, number) for number in range(batches.batches_per_epoch)]


def anchors(batches: GroupBatches, epoch: int = 0) -> list[bytes]:
    """The anchors' patterns, which are all different, in the order drawn."""
    return [pattern.tobytes() for batch in epoch_of(batches, epoch) for pattern in batch.counts[:, 0]]


def test_patterns_have_their_dc_in_the_corner(scan: ScanDataset) -> None:
    found = read_patterns(scan, np.array([3, 1]))
    assert (found.shape, found.dtype) == ((2, N, N), np.float32)
    np.testing.assert_array_equal(found[0, 0, 0], scan.counts(np.array([3]))[0, N // 2, N // 2])
    np.testing.assert_array_equal(np.fft.fftshift(found, axes=(1, 2)), scan.counts(np.array([3, 1])))


def test_training_subset(scan: ScanDataset) -> None:
    assert training_subset(scan, TrainConfig()) is scan
    first = training_subset(scan, TrainConfig(n_subsample=7, sequential_sampling=True))
    np.testing.assert_array_equal(first.positions, scan.positions[:7])
    a, b, c = (training_subset(scan, TrainConfig(n_subsample=7, subsample_seed=s)).positions for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    with pytest.raises(ConfigError, match="n_subsample is 26"):
        training_subset(scan, TrainConfig(n_subsample=26))


def test_shapes_and_dtypes(scan: ScanDataset) -> None:
    batches = batches_of(scan, batch_size=3)
    sizes = []
    for batch in epoch_of(batches, 0):
        g = len(batch.counts)
        sizes.append(g)
        assert (batch.counts.shape, batch.counts.dtype) == ((g, 4, N, N), np.float32)
        assert (batch.offsets.shape, batch.offsets.dtype) == ((g, 4, 2), np.int64)
        assert (batch.fractions.shape, batch.fractions.dtype) == ((g, 4, 2), np.float32)
        assert (batch.shift.shape, batch.shift.dtype) == ((g, 4, 2, 7), np.float32)
        assert (batch.member.shape, batch.member.dtype) == ((g, 4), np.float32)
        assert batch.truth is None
    assert batches.n_groups == 7  # 25 patterns, 4 a group
    assert sizes == [3, 3, 1]
    assert batches.batches_per_epoch == 3


def test_a_group_says_where_its_members_are(scan: ScanDataset) -> None:
    batches = batches_of(scan)
    groups = np.array([[6, 7, 1], [12, 11, -1]])
    batch = batches.read(groups)
    corners, fractions = split_positions(scan.positions, N)
    np.testing.assert_array_equal(batch.counts[0], read_patterns(scan, groups[0]))
    np.testing.assert_array_equal(batch.offsets[0], corners[groups[0]] - corners[6])
    np.testing.assert_allclose(batch.fractions[0], fractions[groups[0]], rtol=1e-6)
    np.testing.assert_allclose(batch.shift[0], shift_weights(fractions[groups[0]]), rtol=1e-6)
    # nobody: a dark pattern, as in inference, where the anchor is; it does not count
    np.testing.assert_array_equal(batch.member, [[1, 1, 1], [1, 1, 0]])
    np.testing.assert_array_equal(batch.offsets[1, 2], [0, 0])
    assert not batch.counts[1, 2].any()


def test_an_epoch_depends_on_the_seed_and_its_number_alone(scan: ScanDataset) -> None:
    batches = batches_of(scan, seed=1, batch_size=3)
    again, other = batches_of(scan, seed=1, batch_size=3), batches_of(scan, seed=2, batch_size=3)
    third = epoch_of(batches, 3)
    epoch_of(again, 0)  # drawing one epoch does not change another
    assert all(same(a, b) for a, b in zip(third, epoch_of(again, 3), strict=True))
    assert not all(same(a, b) for a, b in zip(third, epoch_of(batches, 4), strict=True))
    assert not all(same(a, b) for a, b in zip(third, epoch_of(other, 3), strict=True))


def test_any_batch_of_an_epoch_is_read_alone(scan: ScanDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The groups of an epoch are drawn once."""
    draws: list[int] = []
    original = module.draw_groups

    def count(*args: Any, **more: Any) -> Any:
        draws.append(1)
        return original(*args, **more)

    monkeypatch.setattr(module, "draw_groups", count)
    batches = batches_of(scan, batch_size=2, n_groups=9)
    alone = epoch_of(batches, 1)
    assert (len(alone), len(draws)) == (5, 1)
    assert all(same(batches_of(scan, batch_size=2, n_groups=9).batch(1, k), alone[k]) for k in (4, 0, 3))


def test_sequential_sampling_takes_anchors_in_scan_order(scan: ScanDataset) -> None:
    patterns = [pattern.tobytes() for pattern in read_patterns(scan, np.arange(25))]
    assert anchors(batches_of(scan, sequential_sampling=True, n_groups=25)) == patterns
    drawn = anchors(batches_of(scan, n_groups=25))
    assert drawn != patterns
    assert sorted(drawn) == sorted(patterns)


def test_n_groups_is_the_length_of_an_epoch(scan: ScanDataset) -> None:
    assert [len(anchors(batches_of(scan, n_groups=n))) for n in (1, 6, 60)] == [1, 6, 60]


def test_neighbor_count_is_how_far_members_are_drawn_from(scan: ScanDataset) -> None:
    def distance(count: int | None) -> float:
        offsets = [
            batch.offsets for epoch in range(4) for batch in epoch_of(batches_of(scan, neighbor_count=count), epoch)
        ]
        return max(float(np.abs(o).max()) for o in offsets)

    assert distance(3) < distance(24)
    with pytest.raises(ConfigError, match="neighbor_count is 2"):
        batches_of(scan, neighbor_count=2)


def test_members_that_do_not_overlap_their_anchor_do_not_count(scan: ScanDataset) -> None:
    """[DATA-103] Two clusters far apart in one scan: the canvas stays small."""
    far = scan.positions + np.where(np.arange(25) < 12, 0, 500)[:, None]
    batches = batches_of(replace(scan, positions=far, object_guess=None), size=8, neighbor_count=24)
    assert 0 < batches.reach < SIZE
    shared = [batch for epoch in range(3) for batch in epoch_of(batches, epoch)]
    assert any((batch.member == 0).any() for batch in shared)
    for batch in shared:
        assert (batch.member[:, 0] == 1).all()
        assert np.abs(batch.offsets).max() <= batches.reach
        assert (batch.offsets[batch.member == 0] == 0).all()


def test_all_in_one_place_has_no_reach(scan: ScanDataset) -> None:
    batches = batches_of(replace(scan, positions=np.full((25, 2), 31.5), object_guess=None))
    assert batches.reach == 0
    assert all((batch.member == 1).all() for batch in epoch_of(batches, 0))


def test_groups_stay_within_their_scan(scan: ScanDataset) -> None:
    marked = replace(scan, scan_index=np.arange(25) % 2)
    numbers = {pattern.tobytes(): i for i, pattern in enumerate(read_patterns(scan, np.arange(25)))}
    for batch in epoch_of(batches_of(marked, n_groups=50), 0):
        for group in batch.counts:
            assert len({numbers[pattern.tobytes()] % 2 for pattern in group}) == 1


def test_truth_comes_with_its_pattern(scan: ScanDataset) -> None:
    def truth(indices: np.ndarray) -> np.ndarray:
        return np.broadcast_to(indices[:, None, None] + 0j, (len(indices), SIZE, SIZE)).astype(np.complex64)

    batch = batches_of(scan, truth=truth).read(np.array([[4, 9], [2, -1]]))
    assert batch.truth is not None
    assert batch.truth.shape == (2, 2, SIZE, SIZE)
    np.testing.assert_array_equal(batch.truth[..., 0, 0].real, [[4, 9], [2, 2]])


def test_too_few_patterns_are_refused(scan: ScanDataset) -> None:
    for count in (0, 1):
        with pytest.raises(DataError, match=f"has {count} pattern"):
            batches_of(scan.select(np.arange(count)))
    with pytest.raises(ConfigError, match="A group has 4 patterns, but the largest scan has 3"):
        batches_of(scan.select(np.arange(3)))
