"""Scans that stay on the device: `backend_suite.resident`. Requirements: specs/10-training.md."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from backend_suite.resident import *  # noqa: F403

from ptychopinn.arrays import ArrayLibrary
from ptychopinn.typing import AnyArray
from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.tensors import TensorLibrary


@pytest.fixture
def device_library() -> Callable[[int], ArrayLibrary]:
    """On the CPU."""
    return lambda budget_mb: TensorLibrary("/CPU:0")


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "f2", "i4", "f4"])
def test_rows_of_every_dtype_are_moved_as_words(dtype: str) -> None:
    """[TRAIN-015] Bit by bit: on a GPU there are kernels for words alone."""
    rng = np.random.default_rng(0)
    rows: AnyArray = rng.integers(0, 256, (5, 8, 8 * np.dtype(dtype).itemsize), np.uint8).view(dtype)
    library = TensorLibrary("/CPU:0")
    moved = library.xp.roll(library.from_host(rows), (-4, -4), axis=(-2, -1))
    assert library.to_host(moved).tobytes() == np.roll(rows, (-4, -4), (-2, -1)).tobytes()
    kept = library.from_blocks(rows.shape, [rows[:3], rows[3:]], lambda block: block)
    assert kept.words.dtype == tf.float32
    assert kept.words.shape == (5, 8, 2 * np.dtype(dtype).itemsize)
    taken = library.to_host(library.xp.take(kept, tf.constant([4, 0, 4]), axis=0))
    assert taken.dtype == rows.dtype
    assert taken.tobytes() == rows[[4, 0, 4]].tobytes()
