"""Patches that wait for their phases. Requirements: specs/19-arrays.md, specs/04-stitching.md."""

from __future__ import annotations

import numpy as np
import pytest
from array_libraries import CountingLibrary

from ptychopinn.arrays import NUMPY
from ptychopinn.patch_store import HostPatches, PatchStore
from ptychopinn.typing import ComplexArray

COUNT, SIZE = 9, 4


@pytest.fixture
def patches() -> ComplexArray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((COUNT, SIZE, SIZE)) + 1j).astype(np.complex64)


@pytest.mark.parametrize("device_bytes", [8 * COUNT * SIZE**2, 8 * COUNT * SIZE**2 - 1])
@pytest.mark.parametrize("host_bytes", [1 << 30, 0], ids=["memory", "file"])
def test_patches_wait_on_the_device_while_they_fit(patches: ComplexArray, device_bytes: int, host_bytes: int) -> None:
    """[ARR-003] [ARR-008] Else in the memory of the host, or in a scratch file; they are the same again."""
    library = CountingLibrary(device_bytes)
    fits = device_bytes == 8 * COUNT * SIZE**2
    with PatchStore(COUNT, SIZE, library, host_bytes) as store:
        assert store.shape == (COUNT, SIZE, SIZE)
        for indices in (np.array([3, 8, 0]), np.array([1, 2, 4, 5, 6, 7])):
            store.put(indices, library.from_host(patches[indices]))
        assert library.went == ([] if fits else [(3, SIZE, SIZE), (6, SIZE, SIZE)])
        np.testing.assert_array_equal(np.asarray(store[2:7]), patches[2:7])
        some = np.array([5, 1, 8])
        np.testing.assert_array_equal(np.asarray(store[some]), patches[some])


def test_patches_of_the_host_are_read_by_a_library(patches: ComplexArray) -> None:
    """[ARR-002]"""
    library = CountingLibrary()
    here = HostPatches(patches, library)
    assert here.shape == patches.shape
    np.testing.assert_array_equal(np.asarray(here[np.array([2, 0])]), patches[[2, 0]])
    with PatchStore(COUNT, SIZE, NUMPY) as store:
        store.put(np.arange(COUNT), patches)
        np.testing.assert_array_equal(store[:], patches)
