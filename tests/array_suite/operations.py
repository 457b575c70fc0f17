"""What each operation of an array library gives, against NumPy written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from ptychopinn.arrays import Array, ArrayLibrary, QuotientStep
from ptychopinn.typing import AnyArray, ComplexArray, IntArray

SIZE = 8
CORNERS = np.array([[0, 0], [3, 5], [12, 11], [7, 2], [7, 2]])  # of windows inside, two of them the same
OUTSIDE = np.array([[-3, 4], [15, 16], [-9, -9], [40, 2], [5, -2]])  # in part, and whole
SHAPE = (20, 19)


def random_complex(seed: int, *shape: int) -> ComplexArray:
    """Complex normal numbers of any shape, complex64."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def windows_of(padded: AnyArray, corners: IntArray, margin: int) -> AnyArray:
    """Windows of an array that has a margin all round, cut one by one."""
    return np.stack([padded[y + margin : y + margin + SIZE, x + margin : x + margin + SIZE] for y, x in corners])


def added(shape: tuple[int, int], values: AnyArray, corners: IntArray) -> AnyArray:
    """Windows added to zeros, one by one; what leaves them is dropped."""
    margin = 50
    padded = np.zeros((shape[0] + 2 * margin, shape[1] + 2 * margin), values.dtype)
    for window, (y, x) in zip(values, corners + margin, strict=True):
        padded[y : y + SIZE, x : x + SIZE] += window
    return padded[margin:-margin, margin:-margin]


def close(library: ArrayLibrary, found: Array, expected: AnyArray, atol: float = 1e-5) -> None:
    """Check that an array of the library has the dtype and the values of one on the host."""
    here = library.to_host(found)
    assert here.dtype == expected.dtype
    np.testing.assert_allclose(here, expected, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("dtype", ["float32", "complex64", "int64", "bool"])
def test_arrays_come_back_from_the_library_as_they_went(library: ArrayLibrary, dtype: str) -> None:
    """[ARR-001]"""
    array = (10 * random_complex(0, 3, 4).real).astype(dtype)
    close(library, library.from_host(array), array)
    close(library, library.from_blocks((3, 4), [array[:2], array[2:]], lambda block: block), array)
    close(library, library.zeros((3, 4), "float32"), np.zeros((3, 4), np.float32))
    close(library, library.arange(5), np.arange(5))
    wider = "complex128" if dtype == "complex64" else "float64"
    close(library, library.cast(library.from_host(array), wider), array.astype(wider))


def test_blocks_are_prepared_where_they_arrive(library: ArrayLibrary) -> None:
    """[ARR-003]"""
    array = np.arange(12, dtype=np.float32).reshape(6, 2)
    whole = library.from_blocks((6, 2), [array[:4], array[4:]], lambda block: block * 2)
    close(library, whole, 2 * array)


@pytest.mark.parametrize("corners", [CORNERS, OUTSIDE, CORNERS[:0]], ids=["inside", "outside", "none"])
@pytest.mark.parametrize("outside", [1.0, 0.0])
@pytest.mark.parametrize("dtype", ["complex64", "float32"])
def test_windows_are_cut(library: ArrayLibrary, corners: IntArray, outside: float, dtype: str) -> None:
    """[ARR-001] Beyond the array stands what was asked for."""
    obj = random_complex(1, *SHAPE)
    obj = obj if dtype == "complex64" else obj.real
    padded = np.pad(obj, 50, constant_values=outside)
    expected = windows_of(padded, corners, 50) if len(corners) else np.zeros((0, SIZE, SIZE), obj.dtype)
    found = library.cut_windows(library.from_host(obj), library.from_host(corners), SIZE, outside)
    close(library, found, expected)
    close(library, library.from_host(obj), obj)


def test_windows_that_are_known_to_be_inside_are_cut_alike(library: ArrayLibrary) -> None:
    """[ARR-001]"""
    obj = random_complex(1, *SHAPE)
    found = library.cut_windows(library.from_host(obj), library.from_host(CORNERS), SIZE, None)
    close(library, found, windows_of(np.pad(obj, 1), CORNERS, 1))


@pytest.mark.parametrize("corners", [CORNERS, OUTSIDE, CORNERS[:0]], ids=["inside", "outside", "none"])
@pytest.mark.parametrize("dtype", ["complex64", "float32"])
def test_windows_are_added(library: ArrayLibrary, corners: IntArray, dtype: str) -> None:
    """[ARR-001] [PHYS-004] The adjoint of cutting: what overlaps adds up, what falls outside is dropped."""
    values, canvas = random_complex(2, len(corners), SIZE, SIZE), random_complex(3, *SHAPE)
    if dtype == "float32":
        values, canvas = values.real, canvas.real
    given = (library.from_host(array) for array in (canvas.copy(), values, corners))
    close(library, library.add_windows(*given), canvas + added(SHAPE, values, corners))
    other = random_complex(4, *SHAPE) if dtype == "complex64" else random_complex(4, *SHAPE).real
    cut = library.to_host(library.cut_windows(library.from_host(other), library.from_host(corners), SIZE, 0.0))
    assert np.vdot(cut, values) == pytest.approx(np.vdot(other, added(SHAPE, values, corners)), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("alpha", "peak"), [(0.05, None), (1.0, None), (0.3, 0.9)])
def test_a_quotient_of_sums_is_added(library: ArrayLibrary, alpha: float, peak: float | None) -> None:
    """[ARR-001] [PHYS-030] ``O + s n / ((1 - a) d + a max d)``, once and again: nothing is left of the first time.

    [TILE-003] With a peak, each pixel has its own maximum.
    """
    canvas = random_complex(5, *SHAPE)
    expected, found = canvas.astype(complex), library.from_host(canvas.copy())
    for seed in (6, 7, 8):
        numerator, denominator = random_complex(seed, 5, SIZE, SIZE), np.abs(random_complex(seed + 9, 5, SIZE, SIZE))
        corners = CORNERS if seed != 7 else np.array([[2, 1], [2, 9], [12, 3], [4, 4], [0, 0]])
        n, d = added(SHAPE, numerator, corners), added(SHAPE, denominator, corners)
        top = d.max() if peak is None else np.maximum(d, peak)
        expected = expected + 0.7 * n / ((1 - alpha) * d + alpha * top)
        groups = (slice(0, 2), slice(2, 5))
        found = library.add_quotient(
            found,
            [library.from_host(numerator[some]) for some in groups],
            [library.from_host(denominator[some]) for some in groups],
            [library.from_host(corners[some]) for some in groups],
            QuotientStep(0.7, alpha, peak),
        )
    close(library, found, expected.astype(np.complex64), atol=1e-4)


def test_images_are_multiplied_where_they_overlap(library: ArrayLibrary) -> None:
    """[ARR-001] [SYNC-001] Also whole images that do not meet, and pairs of one image."""
    images = random_complex(10, 4, SIZE, SIZE)
    first, second = np.array([0, 1, 2, 3, 0, 1]), np.array([1, 2, 3, 0, 0, 3])
    offsets = np.array([[0, 0], [3, -2], [-5, 1], [3, -2], [7, 7], [9, 0]])
    expected = []
    for a, b, (dy, dx) in zip(first, second, offsets, strict=True):
        total = 0j
        for y in range(SIZE):
            for x in range(SIZE):
                if 0 <= y - dy < SIZE and 0 <= x - dx < SIZE:
                    total += complex(images[a, y, x]) * complex(images[b, y - dy, x - dx]).conjugate()
        expected.append(total)
    given = (library.from_host(array) for array in (images, first, second, offsets))
    found = library.to_host(library.shifted_products(*given))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    empty = np.zeros((0, 2), np.int64)
    nothing = (library.from_host(array) for array in (images, empty[:, 0], empty[:, 0], empty))
    assert library.to_host(library.shifted_products(*nothing)).shape == (0,)


def test_a_sparse_matrix_is_multiplied_and_solved(library: ArrayLibrary) -> None:
    """[ARR-001] An empty one too."""
    rng = np.random.default_rng(11)
    dense = rng.standard_normal((30, 30)) * (rng.random((30, 30)) < 0.2) + 1j * np.diag(rng.random(30))
    vector = rng.standard_normal(30) + 1j * rng.standard_normal(30)
    product = library.sparse_product(sparse.csr_matrix(dense))(library.from_host(vector))
    close(library, product, dense @ vector, atol=1e-12)
    none = library.sparse_product(sparse.csr_matrix((30, 30), dtype=complex))(library.from_host(vector))
    close(library, none, np.zeros(30, complex))
    definite = sparse.csr_matrix((dense.real.T @ dense.real) + np.eye(30))
    right = rng.standard_normal(30)
    np.testing.assert_allclose(definite @ library.solve_sparse(definite, right), right, atol=1e-9)


@pytest.mark.parametrize("rows", [1, 150])
def test_large_arrays_are_changed_by_rows(library: ArrayLibrary, rows: int) -> None:
    """[ARR-001] One array, or several, in place or not."""
    a, b = random_complex(12, rows, 5), random_complex(13, rows, 5).real
    given = library.from_host(a.copy()), library.from_host(b)
    close(library, library.by_rows(lambda x, y: x * y, *given), a * b)
    both = library.by_rows(lambda x, y: (x + y, 2 * y), library.from_host(a.copy()), library.from_host(b.copy()))
    for found, expected in zip(both, (a + b, 2 * b), strict=True):
        close(library, found, expected)


def test_rows_are_put_and_taken(library: ArrayLibrary) -> None:
    """[ARR-001] By an index, and by slices."""
    array, values, index = random_complex(14, 6, 4), random_complex(15, 3, 4), np.array([5, 0, 2])
    expected = array.copy()
    expected[index] = values
    given = library.from_host(array.copy()), library.from_host(index), library.from_host(values)
    close(library, library.put(*given), expected)
    close(library, library.take(library.from_host(array), index), array[index])
    place = slice(1, 4), slice(2, 4)
    expected = array.copy()
    expected[place] = values[:, :2]
    found = library.put(library.from_host(array.copy()), place, library.from_host(values)[:, :2])
    close(library, found, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_complex_arrays_are_made_of_real_ones(library: ArrayLibrary, dtype: str) -> None:
    """[ARR-001]"""
    real, imag = (random_complex(seed, 3, 4, 5).real.astype(dtype) for seed in (16, 17))
    expected = real + 1j * imag
    close(library, library.complex(library.from_host(real), library.from_host(imag)), expected)
    close(library, library.as_complex(library.from_host(np.stack([real, imag], axis=-1))), expected)


def test_products_of_matrices_and_of_conjugates(library: ArrayLibrary) -> None:
    """[ARR-001]"""
    a, b = random_complex(18, 3, 4, 5), random_complex(19, 3, 5, 6)
    close(library, library.matmul(library.from_host(a), library.from_host(b)), a @ b)
    close(library, library.matmul(library.from_host(a[0]), library.from_host(b)), a[0] @ b)
    c = random_complex(20, 3, 4, 5)
    close(library, library.conj_times(library.from_host(a.copy()), library.from_host(c)), a.conj() * c)
    found = library.squared_sum(library.from_host(a.real))
    close(library, found, np.float64((a.real.astype(np.float64) ** 2).sum()), atol=1e-3)


@pytest.mark.parametrize("norm", ["backward", "ortho"])
def test_transforms(library: ArrayLibrary, norm: str) -> None:
    """[ARR-001] Over the last two axes, in single precision."""
    array = random_complex(21, 2, 3, 8, 6)
    expected = np.fft.fft2(array, norm=norm).astype(np.complex64)
    close(library, library.fft2(library.from_host(array.copy()), norm=norm), expected, atol=1e-4)
    close(library, library.ifft2(library.from_host(expected.copy()), norm=norm), array, atol=1e-4)


def test_counts_are_those_of_poisson(library: ArrayLibrary) -> None:
    """[ARR-001] Mean and variance are those asked for; a seed gives the same counts again, another one others."""
    mean = np.broadcast_to(np.array([0.0, 0.3, 4.0, 500.0], np.float32)[:, None], (4, 20_000))
    drawn = [
        library.to_host(library.poisson(library.from_host(mean.copy()), seed)) for seed in ([1, 2], [1, 2], [1, 3])
    ]
    assert drawn[0].dtype == np.float32
    assert (drawn[0] == np.round(drawn[0])).all()
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    np.testing.assert_allclose(drawn[0].mean(axis=1), mean[:, 0], rtol=0.03)
    np.testing.assert_allclose(drawn[0].var(axis=1), mean[:, 0], rtol=0.05)


def test_work_is_spread_in_order(library: ArrayLibrary) -> None:
    """[ARR-001]"""
    assert library.spread(lambda item: 2 * item, range(50)) == [2 * item for item in range(50)]
    assert library.spread(lambda item: item, []) == []
    assert library.batch_length(1 << 40, 1) == 1
    assert library.batch_length(4, 1 << 10) >= 1 << 8
