"""Which devices compute, and how much of their memory is taken. Requirements: specs/10-training.md."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf

from ptychopinn.errors import ResourceError
from ptychopinn_tf import devices
from ptychopinn_tf.devices import choose_device, exact_float32
from ptychopinn_tf.options import TfOptions


class FakeConfig:
    """A machine with some GPUs."""

    def __init__(self, gpus: int, *, in_use: float | None = None) -> None:
        self.gpus = [f"gpu {k}" for k in range(gpus)]
        self.in_use, self.limits, self.grown, self.growth_told = in_use, {}, [], []  # type: ignore[var-annotated]
        self.experimental = SimpleNamespace(
            set_memory_growth=self.set_memory_growth, get_device_details=lambda gpu: {"device_name": f"card {gpu[-1]}"}
        )

    def list_physical_devices(self, kind: str) -> list[str]:
        return self.gpus if kind == "GPU" else []

    def list_logical_devices(self) -> None:
        self.growth_told.append(os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH"))

    def set_memory_growth(self, gpu: str, on: bool) -> None:
        self._refuse_when_in_use()
        self.grown.append((gpu, on))

    def set_logical_device_configuration(self, gpu: str, logical: list[Any]) -> None:
        self._refuse_when_in_use()
        self.limits[gpu] = logical[0].memory_limit

    def get_logical_device_configuration(self, gpu: str) -> Any:
        return [SimpleNamespace(memory_limit=self.in_use)] if self.in_use else None

    def LogicalDeviceConfiguration(self, memory_limit: float) -> Any:
        return SimpleNamespace(memory_limit=memory_limit)

    def _refuse_when_in_use(self) -> None:
        if self.in_use is not None:
            raise RuntimeError("Physical devices cannot be modified after being initialized")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(gpus: int, build: dict[str, Any] | None = None, **state: Any) -> FakeConfig:
        config = FakeConfig(gpus, **state)
        sysconfig = SimpleNamespace(get_build_info=lambda: build or {"is_cuda_build": False})
        monkeypatch.setattr(devices, "tf", SimpleNamespace(config=config, sysconfig=sysconfig, __version__="9.9"))
        return config

    return make


@pytest.mark.parametrize(
    ("gpus", "options", "expected"),
    [
        (0, {}, "/CPU:0"),
        (2, {}, "/GPU:0"),
        (2, {"accelerator": "cpu"}, "/CPU:0"),
        (1, {"accelerator": "cuda"}, "/GPU:0"),
        (4, {"accelerator": "cuda:3"}, "/GPU:3"),
    ],
)
def test_the_device_asked_for(machine: Any, gpus: int, options: dict[str, Any], expected: str) -> None:
    """[TRAIN-009]"""
    machine(gpus)
    assert choose_device(TfOptions(**options)) == expected


@pytest.mark.parametrize(
    ("gpus", "options", "problem", "remedy"),
    [
        (
            0,
            {"accelerator": "cuda"},
            "cuda was asked for, but TensorFlow 9.9 is a build for the CPU",
            "--accelerator cpu",
        ),
        (0, {"accelerator": "cuda:1"}, "cuda:1 was asked for, but TensorFlow 9.9", "--accelerator cpu"),
        (1, {"accelerator": "cuda:7"}, r"cuda:7 was asked for; there is cuda:0 \(card 0\)\.", "CUDA_VISIBLE_DEVICES"),
        (2, {"accelerator": "cuda:2"}, r"there are cuda:0 \(card 0\), cuda:1 \(card 1\)", "one of them"),
        (0, {"gpu_memory_limit_mb": 999}, "sees no GPU", "Leave it out"),
    ],
)
def test_what_is_not_there_is_refused(
    machine: Any, gpus: int, options: dict[str, Any], problem: str, remedy: str
) -> None:
    """[TRAIN-009] [REC-011]"""
    machine(gpus)
    with pytest.raises(ResourceError, match=problem) as caught:
        choose_device(TfOptions(**options))
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("build", "told"),
    [
        ({"is_cuda_build": True, "cuda_version": "12.5"}, "is built for CUDA 12.5 and finds no card"),
        ({"is_cuda_build": False, "is_rocm_build": True}, "is built for ROCm and finds no card"),
    ],
)
def test_a_build_that_finds_no_card_is_named(machine: Any, build: dict[str, Any], told: str) -> None:
    """[TRAIN-009]"""
    machine(0, build=build)
    with pytest.raises(ResourceError, match=told):
        choose_device(TfOptions(accelerator="cuda"))


def test_memory_grows_on_every_gpu(machine: Any) -> None:
    """Also where only the CPU computes: TensorFlow opens all GPUs, and would take all of their memory."""
    for options in ({}, {"accelerator": "cpu"}):
        config = machine(2)
        choose_device(TfOptions(**options))
        assert config.grown == [("gpu 0", True), ("gpu 1", True)]
        assert config.limits == {}


def test_memory_is_bounded_and_still_grows(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (None, "false"):
        monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", before) if before else None
        config = machine(2)
        choose_device(TfOptions(gpu_memory_limit_mb=4096))
        assert config.limits == {"gpu 0": 4096, "gpu 1": 4096}
        assert config.growth_told == ["true"]
        assert os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH") == before


def test_a_process_keeps_the_bound_it_began_with(machine: Any) -> None:
    machine(1, in_use=4096)
    assert choose_device(TfOptions(gpu_memory_limit_mb=4096)) == choose_device(TfOptions()) == "/GPU:0"
    with pytest.raises(ResourceError, match="can no longer be limited to 512 MiB") as caught:
        choose_device(TfOptions(gpu_memory_limit_mb=512))
    assert "another process" in caught.value.remedy


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("wanted", [True, False])
def test_arithmetic_is_put_back(before: bool, wanted: bool) -> None:
    from tensorflow.python.framework import config

    def switch(on: bool) -> None:
        (config.enable_op_determinism if on else config.disable_op_determinism)()

    assert config.tensor_float_32_execution_enabled()
    try:
        switch(before)
        with exact_float32(deterministic=wanted):
            assert config.is_op_determinism_enabled() is wanted
            assert not config.tensor_float_32_execution_enabled()
        assert config.is_op_determinism_enabled() is before
        assert tf.config.experimental.tensor_float_32_execution_enabled()
    finally:
        switch(False)


def test_arithmetic_of_two_threads_that_overlap() -> None:
    """[RUN-061] The first ends first: the second goes on in true float32."""
    from tensorflow.python.framework import config

    first, second = exact_float32(deterministic=True), exact_float32(deterministic=False)
    first.__enter__()
    with ThreadPoolExecutor(1) as other:
        other.submit(second.__enter__).result()
        assert config.is_op_determinism_enabled()
        first.__exit__(None, None, None)
        assert not config.is_op_determinism_enabled()
        assert not config.tensor_float_32_execution_enabled()
        other.submit(second.__exit__, None, None, None).result()
    assert config.tensor_float_32_execution_enabled()


def test_tensorflow_computes_with_the_threads_of_the_option() -> None:
    """[RUN-010] Another number is refused once it computes, because it cannot be changed."""
    code = (
        "from ptychopinn.errors import ResourceError\n"
        "from ptychopinn_tf.devices import limit_threads, tf\n"
        "limit_threads(3)\n"
        "assert tf.config.threading.get_intra_op_parallelism_threads() == 3\n"
        "tf.constant(1.0) + 1\n"
        "limit_threads(None)\n"
        "limit_threads(3)\n"
        "try:\n    limit_threads(2)\nexcept ResourceError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "can no longer be set to 2" in done.stdout
