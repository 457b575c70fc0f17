"""What follows a prediction, in a backend's own arrays; a device that is the CPU stands in for a GPU.

A backend's tests have a fixture ``device_library``: a function from MiB of memory to its library on such a device.
Requirements: specs/07-reconstructor.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from backend_suite.fits import Trained
from ptychopinn.arrays import NUMPY, ArrayLibrary, QuotientStep
from ptychopinn.config import InferConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.reconstruction import reconstruct
from ptychopinn.testing import PredictionConformance

MakeLibrary = Callable[[int], ArrayLibrary]
ENOUGH_MB = 64


@pytest.fixture
def library(device_library: MakeLibrary) -> ArrayLibrary:
    """The library of the backend with a budget that everything fits."""
    return device_library(ENOUGH_MB)


def use(library: ArrayLibrary, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a reconstructor compute with a library what follows its predictions."""
    monkeypatch.setitem(vars(trained.reconstructor), "library", library)  # where the property leaves it
    assert trained.reconstructor.library is library


SETTINGS: dict[str, dict[str, Any]] = {
    "predicted": {},
    "patches as they come": {"synchronise": "off"},
    "refined": {"refine": 2, "refine_probe": True, "refine_positions": True},
    "thinned": {"predict_overlap": 0.4, "refine": 2},
    "probe of the scan": {"probe_source": "scan", "inference_batch_size": 7},
}


@pytest.mark.parametrize("memory_mb", [ENOUGH_MB, 0])
@pytest.mark.parametrize("kind", SETTINGS)
def test_a_device_reconstructs_the_same(
    device_library: MakeLibrary,
    trained: Trained,
    scan: ScanDataset,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    memory_mb: int,
) -> None:
    """[REC-013] To 1e-3 of the amplitude, whether patterns and patches stay on the device or come from the host."""
    config = InferConfig(**{"refine": 0, **SETTINGS[kind]})
    expected = reconstruct(trained.reconstructor, scan, config)
    use(device_library(memory_mb), trained, monkeypatch)
    found = reconstruct(trained.reconstructor, scan, config)
    assert isinstance(found.object, np.ndarray)
    assert isinstance(found.probe, np.ndarray)
    amplitude = np.abs(expected.object).mean()
    np.testing.assert_allclose(found.object, expected.object, atol=1e-3 * amplitude)
    np.testing.assert_allclose(found.probe, expected.probe, atol=1e-3 * np.abs(expected.probe).max())
    np.testing.assert_allclose(found.positions, expected.positions, atol=1e-2)
    np.testing.assert_allclose(found.coverage, expected.coverage, atol=1e-3)
    assert found.residual == pytest.approx(expected.residual, abs=1e-4)


def test_patches_do_not_pass_through_the_host(
    library: ArrayLibrary, trained: Trained, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[REC-013] Counts go to the network, and patches come back, as arrays of the library."""
    expected = trained.patches(scan)
    use(library, trained, monkeypatch)
    to_host = library.to_host

    def refuse(array: Any) -> Any:
        raise AssertionError("an array went to the host")

    monkeypatch.setattr(library, "to_host", refuse)
    prediction = trained.reconstructor.infer(scan, InferConfig(inference_batch_size=10))
    assert prediction.library is library
    patches = [batch.patches for batch in prediction.batches]
    monkeypatch.setattr(library, "to_host", to_host)
    assert [part.shape[0] for part in patches] == [10, 10, 5]
    np.testing.assert_allclose(np.concatenate([to_host(part) for part in patches]), expected, atol=1e-5)
    assert prediction.patterns is not None


class OnADevice(PredictionConformance):
    """The kit, where predictions are a device's; a subclass supplies what the kit asks for."""

    @pytest.fixture(autouse=True)
    def on_a_device(self, device_library: MakeLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the reconstructor predict with the arrays of a device, also on the CPU."""
        library = device_library(ENOUGH_MB)
        monkeypatch.setattr(self.spec.load_class(), "library", property(lambda _: library))


def complex_normal(rng: np.random.Generator, *shape: int) -> Any:
    """Complex normal numbers of any shape, complex64."""
    values = rng.standard_normal((*shape, 2), np.float32)
    return values.view(np.complex64)[..., 0]


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_windows_add_up(library: ArrayLibrary, dtype: str) -> None:
    """Some meet, some leave the canvas, one is outside of it."""
    rng = np.random.default_rng(0)
    windows = complex_normal(rng, 6, 5, 5)
    canvas = complex_normal(rng, 12, 9)
    if dtype == "float32":
        windows, canvas = (np.ascontiguousarray(array.real) for array in (windows, canvas))
    corners = np.array([[0, 0], [1, 2], [1, 2], [-3, 7], [10, -1], [40, 3]])
    expected = NUMPY.add_windows(canvas.copy(), windows, corners)
    found = library.to_host(library.add_windows(*(library.from_host(a) for a in (canvas.copy(), windows, corners))))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("peak", [None, 0.8])
@pytest.mark.parametrize("shape", [(12, 11), (90, 80)])
def test_a_quotient_of_windows(library: ArrayLibrary, shape: tuple[int, int], peak: float | None) -> None:
    """Over the whole canvas, and where the windows are."""
    rng = np.random.default_rng(1)
    canvas = complex_normal(rng, *shape)
    numerators = [complex_normal(rng, 4, 6, 6) for _ in range(2)]
    denominators = [rng.random((4, 6, 6), np.float32) + 0.1 for _ in range(2)]
    corners = [rng.integers(0, 6, (4, 2)) for _ in range(2)]
    step = QuotientStep(0.7, regularisation=0.2, peak=peak)
    expected = NUMPY.add_quotient(canvas.copy(), numerators, denominators, corners, step)
    sent = [[library.from_host(a) for a in arrays] for arrays in (numerators, denominators, corners)]
    found = library.add_quotient(library.from_host(canvas.copy()), *sent, step)
    np.testing.assert_allclose(library.to_host(found), expected, atol=1e-5)


@pytest.mark.parametrize("filled", [0.0, 0.02, 0.6])
def test_a_sparse_product(library: ArrayLibrary, filled: float) -> None:
    """Of no entries, of short rows, and of rows so long that they are cut."""
    rng = np.random.default_rng(2)
    dense = np.where(rng.random((120, 120)) < filled, rng.standard_normal((120, 120)), 0) * (1 + 0.3j)
    vector = rng.standard_normal(120) + 1j * rng.standard_normal(120)
    found = library.sparse_product(sparse.csr_array(dense))(library.from_host(vector))
    np.testing.assert_allclose(library.to_host(found), dense @ vector, atol=1e-12)


def test_a_sparse_system(library: ArrayLibrary) -> None:
    matrix = sparse.diags_array([-1.0, 2.5, -1.0], offsets=[-1, 0, 1], shape=(40, 40)).tocsr()
    right = np.random.default_rng(3).standard_normal(40)
    np.testing.assert_allclose(matrix @ library.solve_sparse(matrix, right), right, atol=1e-10)


def test_blocks_become_one_array(library: ArrayLibrary) -> None:
    rows = np.arange(60, dtype=np.int16).reshape(10, 3, 2)
    blocks = iter([rows[:4], rows[4:9], rows[9:]])
    found = library.to_host(library.from_blocks(rows.shape, blocks, lambda block: library.cast(block, "float32") + 1))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rows + 1.0)


def test_poisson_counts_repeat(library: ArrayLibrary) -> None:
    mean = library.from_host(np.full((50, 80), 9.0, np.float32))
    one, same, other = (library.to_host(library.poisson(mean, seed)) for seed in ((1, 2), (1, 2), (1, 3)))
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, same)
    assert (one != other).mean() > 0.5
    assert one.mean() == pytest.approx(9, abs=0.3)
    assert one.var() == pytest.approx(9, abs=1)
