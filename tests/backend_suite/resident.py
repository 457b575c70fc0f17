"""Scans that stay on the device: the batches are the core's. Requirements: specs/10-training.md.

A backend's tests have a fixture ``device_library``: a function from MiB of memory to the library that its trainings
keep patterns with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backend_suite.fits import Fit
from ptychopinn.arrays import ArrayLibrary
from ptychopinn.config import ModelConfig, TrainConfig
from ptychopinn.data.bad_values import BadValues
from ptychopinn.data.batches import GroupBatches
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.training import EpochSource
from ptychopinn.training.resident import ResidentGroups, resident_bytes
from ptychopinn.training.sources import BatchLoader
from ptychopinn.typing import AnyArray

MakeLibrary = Callable[[int], ArrayLibrary]
RESIDENT = {"device_memory_budget_mb": 256}


def groups_of(data: ScanDataset, truth: Any = None, **train: Any) -> GroupBatches:
    """The batches of a training of five groups of four patterns, two groups a batch."""
    config = TrainConfig(**{"n_groups": 5, "batch_size": 2, **train}).resolved(on_gpu=False)
    return GroupBatches(data, ModelConfig(N=32, group_size=4), config, truth)


def check_same(groups: GroupBatches, library: ArrayLibrary) -> None:
    """The resident batches are the core's, and what fills up the last one has no share."""
    source, resident = EpochSource(groups, None, groups.batches_per_epoch, 0), ResidentGroups(groups, library)
    for epoch in (0, 3):
        found = list(BatchLoader([resident], len(source), 0).batches(epoch))
        expected = list(source(epoch))
        assert len(found) == len(expected)
        assert len({tuple(batch.tensors["counts"].shape) for batch in found}) == 1
        for batch, arrays in zip(found, expected, strict=True):
            count = len(arrays["counts"])
            assert batch.patterns == int(arrays["member"].sum())
            assert batch.tensors.keys() == arrays.keys()
            there = arrays["member"] > 0
            for name, array in arrays.items():
                tensor = library.to_host(batch.tensors[name])
                assert tensor.dtype == array.dtype, name
                if name == "truth":
                    np.testing.assert_array_equal(tensor[:count][there], array[there])
                else:
                    np.testing.assert_allclose(tensor[:count], array, rtol=1e-6, err_msg=name)
                if name.endswith("share"):
                    assert not tensor[count:].any()


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", ">u2", "u4", "i8", "f2", "f4", ">f8"])
@pytest.mark.parametrize("measurement", list(Measurement))
def test_patterns_of_every_dtype(
    scan: ScanDataset, device_library: MakeLibrary, dtype: str, measurement: Measurement
) -> None:
    """[TRAIN-015] In their own, which takes no more of the device than of the file."""
    rng = np.random.default_rng(0)
    bad = np.zeros((32, 32), bool)
    bad[3, 5:9] = True
    patterns = rng.integers(0, 250, (25, 32, 32)).astype(dtype)
    if np.dtype(dtype) == np.uint16:
        patterns[:, 4, 4] = 60_000  # no negative number
    data = replace(scan, patterns=patterns, measurement=measurement, bad_pixels=bad, counts_per_unit=1.7)
    groups = groups_of(data)
    check_same(groups, device_library(256))
    assert resident_bytes(groups) == 25 * 32 * 32 * min(np.dtype(dtype).itemsize, 4)


def test_what_stands_at_bad_pixels_does_not_spread(scan: ScanDataset, device_library: MakeLibrary) -> None:
    """[LOSS-003]"""
    bad = np.zeros((32, 32), bool)
    bad[3, 5:9] = True
    patterns = np.array(scan.patterns, np.float64)
    patterns[:, bad] = [np.nan, np.inf, -np.inf, 1e300]
    check_same(groups_of(replace(scan, patterns=patterns, bad_pixels=bad)), device_library(256))


@pytest.mark.parametrize("dtype", ["u2", "f4", "f8"])
def test_bad_values_of_single_patterns_are_marked(scan: ScanDataset, device_library: MakeLibrary, dtype: str) -> None:
    """[LOSS-003] [DATA-130]"""
    masks = np.zeros((25, 32, 32), bool)
    masks[::3, 4:6] = masks[1, 2] = True
    patterns = np.array(scan.patterns).astype(dtype)
    patterns[masks] = 60_000 if dtype == "u2" else np.nan
    data = replace(scan, patterns=patterns, bad_values=BadValues.of_masks(masks), counts_per_unit=1.7)
    groups = groups_of(data)
    marked = np.fft.ifftshift(groups.batch(0, 0).counts < 0, axes=(-2, -1))
    np.testing.assert_array_equal(marked, masks[groups.groups(0)[:2]])
    check_same(groups, device_library(256))
    assert resident_bytes(groups) == 25 * 32 * 32 * 4


def test_groups_with_members_that_are_not_there(scan: ScanDataset, device_library: MakeLibrary) -> None:
    """[TRAIN-015] Two scans in one, of which one has too few patterns."""
    data = replace(scan, scan_index=(np.arange(25) > 22).astype(np.int64))
    groups = groups_of(data, n_groups=30)
    assert any((groups.groups(epoch) < 0).any() for epoch in (0, 3))
    check_same(groups, device_library(256))


def test_known_patches_stay_too(scan: ScanDataset, device_library: MakeLibrary) -> None:
    def truth(numbers: AnyArray) -> AnyArray:
        return (numbers[:, None, None] + np.zeros((16, 16)) + 0.5j).astype(np.complex64)

    groups = groups_of(scan, truth)
    check_same(groups, device_library(256))
    assert resident_bytes(groups) == 25 * (32 * 32 * 4 + 16 * 16 * 8)


@pytest.mark.parametrize(
    "settings",
    [
        {"train": {"nepochs": 4, "mae_weight": 0.5, "realspace_weight": 0.5, "probe_trainable": True}},
        {"train": {"nepochs": 3, "n_groups": 7, "batch_size": 4, "accumulate_grad_batches": 3}},
        {"train": {"nepochs": 3, "validation_fraction": 0.3}},
        {"train": {"nepochs": 3}, "model": {"model_type": "supervised"}},
        {"train": {"nepochs": 3, "realspace_mae_weight": 0.3, "n_groups": 7}, "model": {"object_big": False}},
    ],
    ids=["terms", "accumulated", "validated", "supervised", "anchor alone"],
)
def test_a_resident_scan_trains_as_a_streamed_one(fit: Fit, off_centre: ScanDataset, settings: dict[str, Any]) -> None:
    """[TRAIN-015] A smaller last batch that is filled up included."""
    streamed, resident = (fit(data=off_centre, **settings, options=options) for options in ({}, RESIDENT))
    assert resident.result.history.keys() == streamed.result.history.keys()
    for name in streamed.result.history.keys() - {"seconds"}:
        assert resident.result.history[name] == pytest.approx(streamed.result.history[name], rel=1e-6), name
    assert resident.result.patterns_seen == streamed.result.patterns_seen
    learned = streamed.arrays()
    for name, array in resident.arrays().items():
        np.testing.assert_allclose(array, learned[name], atol=1e-4, err_msg=name)
