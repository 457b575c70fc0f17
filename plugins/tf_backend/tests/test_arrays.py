"""CuPy's arrays beside TensorFlow's tensors: `backend_suite.arrays`, and how they are handed over."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import array_api_strict
import numpy as np
import pytest
import tensorflow as tf
from backend_suite.arrays import *  # noqa: F403
from backend_suite.arrays import MakeLibrary, OnADevice, use
from backend_suite.fits import New, Trained
from numpy_as_cupy import FREE_BYTES, CpuCupyLibrary, install

from ptychopinn.arrays import NUMPY, ArrayLibrary
from ptychopinn.config import InferConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.reconstruction import reconstruct
from ptychopinn_tf.arrays import CupyLibrary, DlpackLibrary
from ptychopinn_tf.devices import Device
from ptychopinn_tf.plugin import ptychopinn_reconstructors


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """NumPy in its place."""
    return install(monkeypatch)


@pytest.fixture
def device_library(cupy: ModuleType) -> MakeLibrary:
    """CuPy that is NumPy."""
    return lambda memory_mb: CpuCupyLibrary(deterministic=True, budget_mb=memory_mb)


def memory_of(tensor: tf.Tensor) -> int:
    """Where a tensor on the CPU begins."""
    return int(np.asarray(memoryview(tensor)).ctypes.data)


def aligned(dtype: str, *shape: int) -> Any:
    """Random numbers that begin where TensorFlow can use them."""
    values = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    memory = np.zeros(values.nbytes + 64, np.uint8)
    first = -memory.ctypes.data % 64
    array = memory[first : first + values.nbytes].view(dtype).reshape(shape)
    array[...] = values
    return array


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_nothing_is_copied(library: CpuCupyLibrary, dtype: str) -> None:
    """[REC-013] There and back, in the same memory."""
    array = aligned(dtype, 3, 5, 7)
    tensor = library.to_tensor(array)
    assert memory_of(tensor) == array.ctypes.data
    assert tensor.dtype == dtype
    np.testing.assert_array_equal((tensor * 2).numpy(), array * 2)
    computed = tensor + 1
    back = library.from_tensor(computed)
    assert back.ctypes.data == memory_of(computed)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, array + 1)


def test_memory_outlives_its_owner(library: CpuCupyLibrary) -> None:
    tensor = library.to_tensor(aligned("float32", 300, 300))
    back = library.from_tensor(tensor * 1)
    others = [np.full((300, 300), 7, np.float32) for _ in range(20)]
    np.testing.assert_array_equal(back, aligned("float32", 300, 300))
    np.testing.assert_array_equal(tensor.numpy(), back)
    assert len(others) == 20


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_memory_that_tensorflow_cannot_use_is_copied(library: CpuCupyLibrary, dtype: str) -> None:
    """It ends the process where an array begins in the midst of a line of memory."""
    array = aligned(dtype, 6, 8, 5)
    for part in (array[:, 1:3], array.ravel()[1:], array.transpose(2, 0, 1), array[1:, 2]):
        np.testing.assert_allclose((library.to_tensor(part) * 2).numpy(), part * 2)


def test_each_hand_over_waits(library: CpuCupyLibrary, cupy: ModuleType) -> None:
    """The two have queues of their own."""
    stream = cupy.cuda.get_current_stream()
    before = stream.waits
    library.to_tensor(aligned("float32", 4))
    assert stream.waits == before + 1


@pytest.mark.parametrize("deterministic", [True, False])
def test_sums_repeat(cupy: ModuleType, deterministic: bool) -> None:
    """In any order of what is added, to the bit, where that is asked for; and with all figures of float32."""
    library = CpuCupyLibrary(deterministic=deterministic)
    rng = np.random.default_rng(0)
    index = rng.integers(0, 7, 4000)
    values = (rng.standard_normal(4000) * 10.0 ** rng.integers(-6, 3, 4000)).astype(np.float32)
    order = rng.permutation(4000)
    one = library.add_at(np.zeros(7, np.float32), index, values)
    other = library.add_at(np.zeros(7, np.float32), index[order], values[order])
    exact = np.bincount(index, values.astype(np.float64), 7)
    np.testing.assert_allclose(one, exact, rtol=1e-4)
    assert np.array_equal(one, other) == deterministic
    if deterministic:
        np.testing.assert_allclose(one, exact, rtol=1.2e-7)


def test_sums_of_nothing_and_of_zeros(library: CpuCupyLibrary) -> None:
    none = np.zeros(0, np.int64)
    np.testing.assert_array_equal(library.add_at(np.ones(3, np.complex64), none, np.zeros(0, np.complex64)), 1)
    zeros = library.add_at(np.ones(3, np.float32), np.array([1, 1]), np.zeros(2, np.float32))
    np.testing.assert_array_equal(zeros, 1)


def test_how_much_is_kept_there(cupy: ModuleType) -> None:
    """Half of what is free, or what was allowed less what is used."""
    assert CpuCupyLibrary(deterministic=True).budget_bytes == (FREE_BYTES + 2**20) // 2
    cupy.get_default_memory_pool().used = 3 << 20
    assert CpuCupyLibrary(deterministic=True, budget_mb=10).budget_bytes == 7 << 20
    assert CpuCupyLibrary(deterministic=True, budget_mb=2).budget_bytes == 0


def test_memory_that_runs_out_is_given_back(library: CpuCupyLibrary, cupy: ModuleType) -> None:
    """[RECON-002] TensorFlow's and CuPy's: each takes from the other."""
    pool = cupy.get_default_memory_pool()
    for error in (tf.errors.ResourceExhaustedError(None, None, "OOM"), MemoryError("Out of memory allocating 9 bytes")):
        assert library.out_of_memory(error)
    assert pool.freed == 2
    assert not library.out_of_memory(ValueError("something else"))
    assert pool.freed == 2


def test_batches_are_halved_on_a_device(
    library: CpuCupyLibrary, trained: Trained, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[RECON-002]"""
    expected = trained.patches(scan)
    use(library, trained, monkeypatch)
    compiled = trained.reconstructor._compiled(trained.reconstructor.trained_model())  # type: ignore[attr-defined]
    sizes: list[int] = []

    def limited(counts: Any, *rest: Any) -> Any:
        sizes.append(len(counts))
        if len(counts) > 6:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
        return compiled(counts, *rest)

    monkeypatch.setattr(trained.reconstructor, "_compiled", lambda model: limited)
    np.testing.assert_allclose(trained.patches(scan, inference_batch_size=10), expected, atol=1e-5)
    assert sizes == [10, 5, 5, 5, 5, 5]


class TestTfOnADevice(OnADevice):
    """The conformance kit."""

    spec = ptychopinn_reconstructors()[0]
    model: ClassVar[Mapping[str, Any]] = {"n_filters_scale": 0.1, "iterations": 1, "group_size": 4}
    train: ClassVar[Mapping[str, Any]] = {"n_groups": 8, "batch_size": 2, "learning_rate": 0.02}
    learn: ClassVar[Mapping[str, Any]] = {"nepochs": 8, "n_groups": 7, "batch_size": 1}
    options: ClassVar[Mapping[str, Any]] = {"accelerator": "cpu"}
    gridsizes = (2,)


# Arrays of the standard, and of nothing else


class StrictLibrary(DlpackLibrary):
    """Arrays that refuse whatever the standard does not have, but for values at given places."""

    def __init__(self) -> None:
        super().__init__(array_api_strict)

    add_windows, add_quotient = ArrayLibrary.add_windows, ArrayLibrary.add_quotient

    def add_at(self, target: Any, index: Any, values: Any) -> Any:
        raise NotImplementedError

    def put(self, array: Any, place: Any, values: Any) -> Any:
        changed = np.array(array)
        changed[np.asarray(place) if hasattr(place, "dtype") else place] = np.asarray(values)
        return self.from_host(changed)

    def address(self, array: Any) -> int | None:
        host = np.asarray(array)
        return int(host.ctypes.data) if host.flags.c_contiguous else None

    def wait(self) -> None:
        pass


@pytest.mark.parametrize("settings", [{}, {"refine": 1}])
def test_arrays_of_the_standard_will_do(
    trained: Trained, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """[REC-013] Nothing of what CuPy has beyond it is used outside of its library."""
    config = InferConfig(**{"refine": 0, **settings})
    expected = reconstruct(trained.reconstructor, scan, config)
    use(StrictLibrary(), trained, monkeypatch)
    found = reconstruct(trained.reconstructor, scan, config)
    np.testing.assert_allclose(found.object, expected.object, atol=1e-3 * np.abs(expected.object).mean())


# Which library it is


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU passes for one."""
    monkeypatch.setattr(Device, "on_gpu", True)


def test_the_cpu_has_numpy(new: New) -> None:
    assert new().library is NUMPY


@pytest.mark.usefixtures("on_a_gpu")
def test_a_gpu_has_cupy(
    new: New, cupy: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(CupyLibrary, "address", CpuCupyLibrary.address)
    made = new(options={"device_memory_budget_mb": 5})
    with caplog.at_level(logging.INFO, logger="ptychopinn"):
        assert isinstance(made.library, CupyLibrary)
    assert made.library.budget_bytes == 5 << 20
    assert "Stitching and refinement run on /CPU:0 with CuPy" in caplog.text


def without_cupy(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(sys.modules, "cupy", None)
    return "cupy"


def with_an_old_driver(monkeypatch: pytest.MonkeyPatch) -> str:
    cupy = install(monkeypatch)

    def fail() -> None:
        raise RuntimeError("cudaErrorInsufficientDriver: the driver is too old")

    cupy.cuda.get_current_stream = fail
    monkeypatch.setattr(CupyLibrary, "address", CpuCupyLibrary.address)
    return "the driver is too old"


def with_another_gpu(monkeypatch: pytest.MonkeyPatch) -> str:
    cupy = install(monkeypatch)
    cupy.cuda.Device = lambda: SimpleNamespace(id=1)
    return "it computes on GPU 1; CUDA_VISIBLE_DEVICES=0 makes that the first"


@pytest.mark.usefixtures("on_a_gpu")
@pytest.mark.parametrize("spoil", [without_cupy, with_an_old_driver, with_another_gpu])
def test_where_cupy_cannot_be_used_the_host_computes(
    new: New,
    scan: ScanDataset,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    spoil: Any,
) -> None:
    """[REC-013] The log says so once, with the reason and the way to change it."""
    reason = spoil(monkeypatch)
    made = new()
    with caplog.at_level(logging.WARNING, logger="ptychopinn"):
        assert made.library is NUMPY
        assert made.library is NUMPY
    (said,) = [record.getMessage() for record in caplog.records]
    assert "Stitching and refinement run on the host" in said
    assert reason in said
    assert ("pip install cupy-cuda12x" in said) == (spoil is without_cupy)
