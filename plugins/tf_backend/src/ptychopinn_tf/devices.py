"""Choose the device, limit the memory and the threads, and set the arithmetic."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ptychopinn.config.execution import Accelerator, cuda_number
from ptychopinn.cores import granted_cores
from ptychopinn.errors import ResourceError
from ptychopinn.process_setting import ProcessSetting
from ptychopinn.training import no_cuda, no_such_card
from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.options import TfOptions

_GROWTH = "TF_FORCE_GPU_ALLOW_GROWTH"
_INSTALL = "install 'tensorflow[and-cuda]'"


def choose_device(options: TfOptions) -> str:
    """The device for the options of one process, by its name in TensorFlow.

    ``auto`` and ``cuda`` are the first GPU, ``cuda:K`` is GPU number K.

    Raises
    ------
    ResourceError
        If CUDA was asked for but is not available, the GPU does not exist, or the memory of GPUs can no longer be
        limited.
    """
    gpus = tf.config.list_physical_devices("GPU")
    _limit_memory(gpus, options.gpu_memory_limit_mb)
    if options.accelerator == Accelerator.CPU or (options.accelerator == Accelerator.AUTO and not gpus):
        if options.gpu_memory_limit_mb is not None:
            raise ResourceError(
                "gpu_memory_limit_mb is set, but TensorFlow sees no GPU.", f"Leave it out, or {_INSTALL}."
            )
        return "/CPU:0"
    if not gpus:
        raise no_cuda(options.accelerator, f"TensorFlow {tf.__version__}", f"is {_build()}", _INSTALL)
    number = cuda_number(options.accelerator) or 0
    if number >= len(gpus):
        raise no_such_card(number, [_name(gpu) for gpu in gpus])
    return f"/GPU:{number}"


def count_gpus() -> int:
    """Number of GPUs that TensorFlow sees."""
    return len(tf.config.list_physical_devices("GPU"))


def limit_threads(asked: int | None, processes: int = 1) -> None:
    """Let TensorFlow compute with so many threads, by default one for each granted core.

    ``processes`` share these cores.

    Raises ResourceError if TensorFlow already computes in this process with another number than the requested one.
    """
    threading = tf.config.threading
    if asked is None and threading.get_intra_op_parallelism_threads():
        return  # the caller has set it
    try:
        threading.set_intra_op_parallelism_threads(asked or max(granted_cores() // processes, 1))
    except RuntimeError as error:  # it has begun to compute
        if asked not in (None, threading.get_intra_op_parallelism_threads()):
            raise ResourceError(
                f"The number of threads can no longer be set to {asked}: {error}.",
                "Use another process, or the number that this one started with.",
            ) from error


def _build() -> str:
    """The kind of this TensorFlow build."""
    build = tf.sysconfig.get_build_info()
    if not (build.get("is_cuda_build") or build.get("is_rocm_build")):
        return "a build for the CPU only"
    built = "ROCm" if build.get("is_rocm_build") else f"CUDA {build.get('cuda_version')}"
    return f"built for {built} and finds no card: a driver that serves it, or libraries, are not there"


def _name(gpu: Any) -> str:
    name: str = tf.config.experimental.get_device_details(gpu).get("device_name", "a GPU")
    return name


def _limit_memory(gpus: list[Any], limit_mb: int | None) -> None:
    """Let GPU memory grow as needed up to a limit; cannot be changed after the first use of a GPU in a process."""
    if not gpus:
        return
    try:
        for gpu in gpus:
            if limit_mb is None:
                tf.config.experimental.set_memory_growth(gpu, True)
            else:
                logical = tf.config.LogicalDeviceConfiguration(memory_limit=limit_mb)
                tf.config.set_logical_device_configuration(gpu, [logical])
    except (RuntimeError, ValueError) as error:  # TensorFlow uses them already, or they were limited before
        if limit_mb is not None and any(_limit_in_force(gpu) != limit_mb for gpu in gpus):
            raise ResourceError(
                f"GPU memory can no longer be limited to {limit_mb} MiB: {error}.",
                "Use another process, or the gpu_memory_limit_mb that this one started with.",
            ) from error
        return
    with _memory_growth():
        tf.config.list_logical_devices()


def _limit_in_force(gpu: Any) -> float | None:
    logical = tf.config.get_logical_device_configuration(gpu)
    limit: float | None = logical[0].memory_limit if logical else None
    return limit


@contextmanager
def _memory_growth() -> Iterator[None]:
    """Settings while TensorFlow opens the GPUs, so that memory under a limit also grows as needed."""
    before = os.environ.get(_GROWTH)
    os.environ[_GROWTH] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_GROWTH]
        else:
            os.environ[_GROWTH] = before


class Device:
    """The device of this process, by its name in TensorFlow, and whether XLA compiles what it computes."""

    def __init__(self, name: str, *, xla: bool) -> None:
        self.name, self.xla = name, xla

    def __str__(self) -> str:
        return self.name

    @property
    def on_gpu(self) -> bool:
        """Whether it is a GPU."""
        return "GPU" in self.name

    def scope(self) -> AbstractContextManager[Any]:
        """The scope for creating variables and calling functions."""
        device: AbstractContextManager[Any] = tf.device(self.name)
        return device

    @staticmethod
    def numbers(values: float | Sequence[float], dtype: tf.DType) -> tf.Tensor:
        """Numbers in the memory of the host: nobody waits until a device has them."""
        with tf.device("/CPU:0"):
            return tf.constant(values, dtype)

    def function(self, compute: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
        """Compile a function."""
        # This package never branches on tensors, so autograph is not needed.
        compiled: Callable[..., Any] = tf.function(compute, jit_compile=self.xla, autograph=False, **settings)
        return compiled


def exact_float32(*, deterministic: bool) -> AbstractContextManager[None]:
    """Compute in true float32, deterministically or not; restores the settings afterwards.

    By default, GPUs round factors to 10 bits (TensorFloat-32), so backends would differ. The settings are those of the
    process: algorithms are deterministic while any thread asks for it.
    """
    return _DETERMINISM.block(on=deterministic)


def _save_numerics() -> Callable[[], None]:
    """Compute in true float32; returns what puts back this and the choice of algorithms."""
    from tensorflow.python.framework import config

    before, tf32 = config.is_op_determinism_enabled(), config.tensor_float_32_execution_enabled()
    config.enable_tensor_float_32_execution(False)

    def put_back() -> None:
        _switch_determinism(before)
        config.enable_tensor_float_32_execution(tf32)

    return put_back


def _switch_determinism(on: bool) -> None:
    from tensorflow.python.framework import config  # the public interface cannot switch determinism off

    if on:
        config.enable_op_determinism()
    else:
        config.disable_op_determinism()


_DETERMINISM = ProcessSetting(_save_numerics, _switch_determinism)
