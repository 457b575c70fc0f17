"""The device's path with tensors on the CPU: what it computes, and where it waits. Spec: specs/19-arrays.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ptychopinn.config import InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import ResourceError
from ptychopinn.geometry import Canvas, Frame, flat_object
from ptychopinn.reconstruction import Reconstruction, reconstruct
from ptychopinn.refinement import RefineOptions, refine
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_scan
from ptychopinn.solvers.engine import PassEngine
from ptychopinn.solvers.options import PassOptions, StepSchedule
from ptychopinn.tiles import PIXEL_BYTES
from ptychopinn_torch.arrays import TorchLibrary
from ptychopinn_torch.reconstructor import TorchReconstructor

N = 32
CPU = torch.device("cpu")
# What makes the host wait for a device, or moves data back from it.
WAITS = {"aten._local_scalar_dense", "aten.nonzero", "aten.item", "aten.equal", "aten.masked_select"}


def library(budget_mb: int = 1000) -> TorchLibrary:
    return TorchLibrary(CPU, deterministic=True, budget_mb=budget_mb)


class OnDevice(TorchReconstructor):
    """The torch backend as it is on a GPU, with the CPU in its place."""

    library = library()


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=N, rows=9, cols=8, seed=1))


@pytest.fixture(scope="module")
def archive(scan: ScanDataset, tmp_path_factory: pytest.TempPathFactory) -> str:
    trained = TorchReconstructor(ModelConfig(N=N, iterations=3, n_filters_scale=0.3))
    trained.train(scan, TrainConfig(nepochs=20, probe_refinement=0))
    path = tmp_path_factory.mktemp("model") / "wts.h5.zip"
    trained.save(path)
    return str(path)


def both(archive: str, scan: ScanDataset, **config: Any) -> tuple[Reconstruction, Reconstruction]:
    return tuple(
        reconstruct(kind.load(archive), scan, InferConfig(**{"refine": 0, **config}))
        for kind in (TorchReconstructor, OnDevice)
    )  # type: ignore[return-value]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"synchronise": "off"},
        {"synchronise": "on"},
        {"refine": 2},
        {"refine": 2, "predict_overlap": 0.5},
        {"refine": 2, "refine_probe": True, "refine_positions": True},
        {"refine": 1, "refine_likelihood": "poisson"},
        {"inference_batch_size": 7},
    ],
)
def test_a_reconstruction_on_the_device_is_that_of_the_host(
    archive: str, scan: ScanDataset, config: dict[str, Any]
) -> None:
    """[ARR-005] To 1e-3 of the amplitude."""
    host, device = both(archive, scan, **config)
    seen = host.coverage > 0.1
    np.testing.assert_allclose(device.object[seen], host.object[seen], atol=1e-3)
    assert device.residual == pytest.approx(host.residual, rel=1e-3)
    assert str(device.synchronised) == str(host.synchronised)
    assert (device.placed, device.dropped) == (host.placed, host.dropped)
    for array in (device.object, device.coverage, device.probe, device.positions):
        assert isinstance(array, np.ndarray)


@pytest.mark.parametrize("budget_mb", [1000, 1])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32", "float32", "float64"])
def test_patterns_on_the_device_are_those_of_the_host(scan: ScanDataset, dtype: str, budget_mb: int) -> None:
    """[ARR-003] In every dtype, kept there or read for every batch, with values that a signed number would not hold."""
    numbers = np.minimum(scan.raw(slice(None)), 200 if dtype == "uint8" else 60_000).astype(dtype)
    if dtype == "uint32":
        numbers[3, 4, 5] = 3_000_000_000
    bad = np.zeros((N, N), bool)
    bad[3, 4] = bad[20, 5] = True
    if dtype == "float32":
        numbers[:, 3, 4] = np.nan
    for measurement, per_unit in ((Measurement.COUNTS, 1.0), (Measurement.AMPLITUDE, 2.5)):
        if measurement is Measurement.AMPLITUDE and dtype == "uint32":
            continue
        data = replace(
            scan, patterns=numbers, bad_pixels=bad, measurement=measurement, counts_per_unit=per_unit, scaling=None
        )
        on_device, on_host = Patterns(data, library(budget_mb)), Patterns(data)
        chosen = np.array([5, 3, 60])
        np.testing.assert_allclose(on_device.counts(chosen).numpy(), on_host.counts(chosen), rtol=1e-6)
        groups = np.array([[1, 2, -1], [2, 7, 9]])
        np.testing.assert_allclose(on_device.groups(groups).numpy(), on_host.groups(groups), rtol=1e-6)
        for (_, here), (_, there) in zip(
            on_device.batches([chosen, chosen + 1]), on_host.batches([chosen, chosen + 1]), strict=True
        ):
            np.testing.assert_allclose(here(slice(1, 3)).numpy(), there(slice(1, 3)), rtol=1e-6)


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Operations of torch by name, and arrays that left for NumPy under "to_host"."""
    counts: Counter[str] = Counter()

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            counts[str(func.overloadpacket)] += 1
            return func(*args, **(kwargs or {}))

    def leaving(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        counts["to_host"] += 1
        return numpy(self, *args, **kwargs)

    numpy = Tensor.numpy
    with pytest.MonkeyPatch.context() as patch, Counting():
        patch.setattr(Tensor, "numpy", leaving)
        patch.setattr(Tensor, "__array__", leaving)
        yield counts


def waits(counts: Counter[str]) -> int:
    return sum(number for name, number in counts.items() if name in WAITS or name == "to_host")


def engine(scan: ScanDataset, *, free: bool, batch_size: int) -> PassEngine:
    here = library()
    patterns, frame = Patterns(scan, here), Frame.around(scan.positions, N)
    options = PassOptions(StepSchedule(), update_probe=free, update_positions=free, batch_size=batch_size)
    start = Canvas(here.from_host(flat_object(frame)), frame, here)
    model = ScanModel(here.from_host(scan.probe), scan.positions)
    return PassEngine(patterns, np.arange(len(scan)), model, start, options)


@pytest.mark.parametrize("free", [False, True])
def test_a_pass_waits_for_the_device_at_its_end_alone(scan: ScanDataset, free: bool) -> None:
    """[ARR-006] However many batches it has."""
    from ptychopinn.monitor import NULL_MONITOR

    found = []
    for batch_size in (36, 6):
        passes = engine(scan, free=free, batch_size=batch_size)
        passes.run(0, 2, NULL_MONITOR)  # a probe that stays is prepared for shifts in the first pass
        with counted() as counts:
            passes.run(1, 2, NULL_MONITOR)
        found.append(waits(counts))
    assert found[0] == found[1] <= 2


@pytest.mark.parametrize("any_order", [False, True])
def test_a_batch_of_a_pass_takes_few_operations(
    scan: ScanDataset, monkeypatch: pytest.MonkeyPatch, any_order: bool
) -> None:
    """[ARR-006] A device waits for the host that starts them: a hundred are a millisecond."""
    monkeypatch.setattr(TorchLibrary, "_adds_in_any_order", any_order)
    from ptychopinn.monitor import NULL_MONITOR

    found = []
    for batch_size in (36, 12):
        passes = engine(scan, free=False, batch_size=batch_size)
        passes.run(0, 2, NULL_MONITOR)
        with counted() as counts:
            passes.run(1, 2, NULL_MONITOR)
        found.append(sum(counts.values()))
    a_batch = (found[1] - found[0]) / (6 - 2)
    assert a_batch < 160


def test_a_batch_of_predictions_does_not_wait(archive: str, scan: ScanDataset) -> None:
    """[ARR-006]"""
    found = []
    for batch_size in (36, 9):
        batches = OnDevice.load(archive).infer(scan, InferConfig(inference_batch_size=batch_size)).batches
        with counted() as counts:
            for batch in batches:
                assert isinstance(batch.patches, Tensor)
        found.append(waits(counts))
    assert found == [0, 0]


def test_stages_wait_a_few_times_however_many_patterns_there_are(archive: str) -> None:
    """[ARR-006] From the prediction to the object."""
    found = []
    for rows in (8, 16):
        scan = simulate_scan(SimulationConfig(N=N, rows=rows, cols=8, seed=1))
        with counted() as counts:
            reconstruct(OnDevice.load(archive), scan, InferConfig(refine=1, inference_batch_size=8))
        found.append(waits(counts))
    assert max(found) < 200
    assert found[1] - found[0] < 40  # iterations of phases and rounds of slow phases differ


def test_what_does_not_fit_is_computed_in_smaller_operations(
    archive: str, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[ARR-004] With the same result."""
    expected = reconstruct(OnDevice.load(archive), scan, InferConfig(refine=1))
    fft2 = TorchLibrary.fft2

    def greedy(self: TorchLibrary, array: Tensor, norm: str = "backward") -> Tensor:
        if array.numel() > 1 << 16:
            raise torch.OutOfMemoryError("CUDA out of memory (injected)")
        return fft2(self, array, norm)

    small = library()
    small.batch_values = 1 << 18
    monkeypatch.setattr(OnDevice, "library", small)
    monkeypatch.setattr(TorchLibrary, "fft2", greedy)
    found = reconstruct(OnDevice.load(archive), scan, InferConfig(refine=1))
    np.testing.assert_allclose(found.object, expected.object, atol=1e-3)
    assert "continuing with operations on" in caplog.text


def test_an_object_too_large_for_the_device_is_worked_on_by_the_host(
    archive: str, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[ARR-004] Predictions come from the device, batch by batch."""
    expected = reconstruct(OnDevice.load(archive), scan, InferConfig(refine=1))
    monkeypatch.setattr("ptychopinn.tiles.PIXEL_BYTES", 1 << 40)
    found = reconstruct(OnDevice.load(archive), scan, InferConfig(refine=1))
    np.testing.assert_allclose(found.object, expected.object, atol=1e-3)
    assert "the host works on it" in caplog.text


@pytest.mark.parametrize("width", [2 * N, 80])
@pytest.mark.parametrize("config", [{}, {"synchronise": "off"}, {"refine": 2, "refine_positions": True}], ids=str)
def test_an_object_too_large_for_the_device_is_worked_on_in_tiles(
    archive: str,
    config: dict[str, Any],
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[ARR-009] To rounding where no pass is made; patterns and patches come for each tile."""
    wide = simulate_scan(SimulationConfig(N=N, rows=20, cols=18, seed=1))
    expected = reconstruct(OnDevice.load(archive), wide, InferConfig(**{"refine": 0, **config}))
    monkeypatch.setattr(TorchLibrary, "budget_bytes", PIXEL_BYTES * width**2)
    found = reconstruct(OnDevice.load(archive), wide, InferConfig(**{"refine": 0, **config}))
    assert "MiB of memory of torch on cpu: worked on in" in caplog.text
    np.testing.assert_allclose(found.coverage, expected.coverage, atol=1e-4)
    assert found.residual == pytest.approx(expected.residual, rel=0.02)
    if "refine" not in config:
        np.testing.assert_allclose(found.object, expected.object, atol=1e-3)


def test_a_device_that_is_full_is_told_as_such(
    archive: str, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[ARR-004]"""

    def full(self: TorchLibrary, array: Tensor, norm: str = "backward") -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory (injected)")

    monkeypatch.setattr(OnDevice, "library", library())
    monkeypatch.setattr(TorchLibrary, "fft2", full)
    with pytest.raises(ResourceError, match="does not suffice for the object"):
        reconstruct(OnDevice.load(archive), scan, InferConfig(refine=0))


def test_the_same_seed_gives_the_same_passes(scan: ScanDataset) -> None:
    """[ARR-007] To the bit."""
    frame = Frame.around(scan.positions, N)

    def run() -> Tensor:
        here = library()
        patterns = Patterns(scan, here)
        options = RefineOptions(2, update_probe=True, update_positions=True)
        start = Canvas(here.from_host(flat_object(frame)), frame, here)
        found = refine(patterns, ScanModel(here.from_host(scan.probe), scan.positions), start, options)
        return found.object

    assert torch.equal(run(), run())


def test_rows_of_a_sparse_matrix_may_be_long() -> None:
    """[ARR-001] Longer than the pieces that they are multiplied in."""
    from scipy import sparse

    rng = np.random.default_rng(0)
    dense = rng.standard_normal((90, 90)) * (rng.random((90, 90)) < 0.1) + 1j * np.eye(90)
    dense[7] = rng.standard_normal(90)
    dense[11] = 0
    vector = rng.standard_normal(90) + 0j
    here = library()
    product = here.sparse_product(sparse.csr_matrix(dense))(here.from_host(vector))
    np.testing.assert_allclose(product.numpy(), dense @ vector)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_sums_in_any_order_repeat(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """[ARR-007] To the bit, and with all figures of float32; a GPU need not sort what is added."""
    monkeypatch.setattr(TorchLibrary, "_adds_in_any_order", True)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(7, (4000,), generator=generator)
    scale = 10.0 ** torch.randint(-6, 3, (4000,), generator=generator)
    values = torch.randn(4000, generator=generator, dtype=dtype) * scale
    order = torch.randperm(4000, generator=generator)
    start = torch.ones(7, dtype=dtype)
    with library().session() as torch_library:
        one = torch_library.add_at(start.clone(), index, values)
        other = torch_library.add_at(start.clone(), index[order], values[order])
        assert torch.are_deterministic_algorithms_enabled()
        nothing = torch_library.add_at(start.clone(), index[:0], values[:0])
        zeros = torch_library.add_at(start.clone(), index, values * 0)
    assert torch.equal(one, other)
    assert torch.equal(nothing, start)
    assert torch.equal(zeros, start)
    double = torch.complex128 if dtype.is_complex else torch.float64
    exact = torch.ones(7, dtype=double).index_add_(0, index, values.to(double))
    torch.testing.assert_close(one.to(double), exact, rtol=2e-7, atol=0)
    assert not torch.equal(start.clone().index_add_(0, index, values), one)  # rounds otherwise


@pytest.mark.parametrize("config", [{"refine": 3, "refine_probe": True, "refine_positions": True}, {}], ids=str)
def test_sums_in_any_order_are_those_of_the_host(
    archive: str, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]
) -> None:
    """[ARR-005]"""
    monkeypatch.setattr(TorchLibrary, "_adds_in_any_order", True)
    host, device = both(archive, scan, **config)
    np.testing.assert_allclose(device.object, host.object, atol=1e-3 * np.abs(host.object).mean())
