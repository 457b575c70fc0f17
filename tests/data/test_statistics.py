"""One pass over the patterns. Requirements: specs/01-data.md."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields

import numpy as np
import pytest

from ptychopinn import parallel
from ptychopinn.data import statistics as module
from ptychopinn.data.statistics import pattern_statistics
from ptychopinn.typing import AnyArray


def patterns_of(count: int, size: int) -> AnyArray:
    return np.random.default_rng(0).poisson(3.0, (count, size, size)).astype(np.uint16)


def test_cores_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """[DATA-020] The same to the bit on any number of cores, and what NumPy says of all patterns at once."""
    patterns = patterns_of(70, 8).astype(np.float32)
    patterns[5, 2, 3], patterns[60, 7, 7], patterns[33] = np.nan, -1.0, 0.25
    bad = np.zeros((8, 8), bool)
    monkeypatch.setattr(module, "_BLOCK_PIXELS", 3 * 64)
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(parallel, "granted_cores", lambda cores=cores: cores)
        found.append(pattern_statistics(patterns, bad))
    for field in fields(found[0]):
        np.testing.assert_array_equal(*(getattr(one, field.name) for one in found))
    one = found[0]
    assert (one.not_finite.tolist(), one.negative.tolist(), one.whole) == ([5], [60], False)
    clean = np.where(np.isfinite(patterns) & (patterns >= 0), patterns, 0)
    np.testing.assert_allclose(one.sums, clean.sum(axis=(1, 2)))
    np.testing.assert_allclose(one.square_sums, (clean**2).sum(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(one.mean, clean.mean(axis=0), rtol=1e-6)
    assert one.peak == clean.max()


def test_memory_does_not_grow_with_the_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    """[DATA-020] But for a few numbers each: maps of the detector are summed as they come."""
    monkeypatch.setattr(parallel, "granted_cores", lambda: 2)
    monkeypatch.setattr(module, "_BLOCK_PIXELS", 4 * 64**2)

    def peak_mib(count: int) -> float:
        patterns, bad = patterns_of(count, 64), np.zeros((64, 64), bool)
        tracemalloc.start()
        pattern_statistics(patterns, bad)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / 2**20

    few, many = peak_mib(100), peak_mib(1000)
    assert many < few + 1  # 225 more blocks with a map each would be 8 MiB


def test_a_repaired_pattern_does_not_hide_roots_of_counts() -> None:
    """[DATA-020] [DATA-051] Evenly spread patterns show what the values are."""
    roots = np.sqrt(patterns_of(1000, 8)).astype(np.float32)
    roots[500] *= 0.73
    seen = pattern_statistics(roots, np.zeros((8, 8), bool))
    assert (seen.whole, seen.whole_squares) == (False, True)
    assert not pattern_statistics(0.73 * roots, np.zeros((8, 8), bool)).whole_squares
