"""NumPy as an array library. Requirements: specs/19-arrays.md."""

from __future__ import annotations

import numpy as np
import pytest

from ptychopinn import parallel
from ptychopinn.arrays import NUMPY, ArrayLibrary, QuotientStep
from ptychopinn.typing import ComplexArray, IntArray

SIZE = 100  # wide enough for threads


def summed(library: ArrayLibrary, shape: tuple[int, int], corners: IntArray, seed: int) -> ComplexArray:
    """A canvas of ones with a quotient of windows added."""
    rng = np.random.default_rng(seed)
    numerator, denominator = rng.random((len(corners), SIZE, SIZE)), rng.random((len(corners), SIZE, SIZE))
    canvas: ComplexArray = library.add_quotient(
        np.ones(shape, np.complex64),
        [numerator.astype(np.complex64)],
        [denominator.astype(np.float32)],
        [corners],
        QuotientStep(1.0, regularisation=0.1),
    )
    return canvas


def test_nothing_stays_from_call_to_call() -> None:
    """[ARR-001] The canvases of a session are clean: each call gives what it gives alone, whatever came before."""
    calls = [
        ((150, 150), np.array([[0, 0], [3, 5]]), 1),
        ((150, 150), np.array([[50, 50]]), 2),
        ((150, 150), np.array([[50, 0], [0, 50], [20, 20]]), 1),
        ((130, 140), np.array([[1, 1]]), 1),
        ((150, 150), np.array([[2, 2]]), 3),
    ]
    with NUMPY.session() as session:
        for call in calls:
            np.testing.assert_array_equal(summed(session, *call), summed(NUMPY, *call))


@pytest.mark.parametrize("cores", [2, 3, 7])
@pytest.mark.parametrize("spread", [100, 500])
def test_threads_add_what_one_adds(cores: int, spread: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """[ARR-001] To the bit, in bands of rows; where windows lie apart, and where they overlap."""
    corners = np.random.default_rng(cores).integers(0, spread, (20, 2))
    call = ((spread + SIZE, spread + SIZE), corners, cores)
    alone = summed(NUMPY, *call)
    monkeypatch.setattr(parallel, "granted_cores", lambda: cores)
    with NUMPY.session() as session:
        np.testing.assert_array_equal(summed(session, *call), alone)


def test_arrays_of_the_host_are_not_copied() -> None:
    """[ARR-002] Nothing is gained by copies of NumPy's own arrays."""
    array = np.ones((3, 4), np.float32)
    assert NUMPY.on_host
    assert NUMPY.from_host(array) is array
    assert NUMPY.to_host(array) is array
    assert NUMPY.cast(array, "float32") is array


def test_transforms_stay_in_single_precision() -> None:
    """[ARR-001] Where NumPy's own would not, of old."""
    wave = np.ones((2, 8, 8), np.complex64)
    assert NUMPY.fft2(wave).dtype == NUMPY.ifft2(wave).dtype == np.complex64
