"""Array libraries for stitching and refinement: CuPy arrays in the memory of TensorFlow's tensors.

TensorFlow's tensors do not follow the array API standard, and CuPy's arrays do. Both say by DLPack where their memory
is, so that nothing is copied between them.
"""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from ptychopinn import failures
from ptychopinn.arrays import NUMPY, Array, ArrayLibrary, ScatterLibrary
from ptychopinn.arrays.library import Sparse
from ptychopinn.arrays.scatter import add_repeatably
from ptychopinn.typing import AnyArray
from ptychopinn_tf._tensorflow import tf

_log = logging.getLogger("ptychopinn.tf")
_ALIGNMENT = 64  # bytes; TensorFlow ends the process where memory that it is given begins elsewhere
_MIB = 1 << 20
_MEMORY_SIGNS = (
    "RESOURCE_EXHAUSTED",
    "out of memory",  # of an OpError; `failures.is_out_of_memory` knows RuntimeErrors
    "OOM when allocating",
    "failed to allocate",
    "bad_alloc",
    "Dst tensor is not initialized",  # of a copy to a GPU that is full
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, in TensorFlow's and CuPy's words too: the one place for them."""
    if isinstance(error, tf.errors.ResourceExhaustedError) or failures.is_out_of_memory(error):
        return True
    return isinstance(error, tf.errors.OpError | RuntimeError) and any(sign in str(error) for sign in _MEMORY_SIGNS)


class _Exporter:
    """A tensor for ``from_dlpack``: the tensor itself refuses to be asked for a stream of operations."""

    def __init__(self, tensor: tf.Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, **_: Any) -> Any:
        return tf.experimental.dlpack.to_dlpack(self._tensor)  # returns when the tensor is computed

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


class DlpackLibrary(ScatterLibrary):
    """An array library on the device of TensorFlow's tensors, with shared memory.

    TensorFlow and the library each have a queue of operations of their own on a device. So each waits until the other
    has computed what it hands over. Memory is used again by its owner, whoever still has to read it: so refer to a
    tensor until what is computed from it was handed over, and after arrays of tensors were let go begin no operation of
    TensorFlow's but by `to_tensor`.
    """

    def from_tensor(self, tensor: tf.Tensor) -> Array:
        """Convert a tensor to an array without a copy."""
        return self.xp.from_dlpack(_Exporter(tensor))

    def to_tensor(self, array: Array) -> tf.Tensor:
        """Convert an array to a tensor, without a copy if it is contiguous and aligned."""
        address = self.address(array)
        if address is None or address % _ALIGNMENT:
            array = self._aligned(array)
        self.wait()
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())

    def _aligned(self, array: Array) -> Array:
        """A copy with the alignment that TensorFlow needs."""
        size = math.prod(array.shape)
        memory = self.zeros((size + _ALIGNMENT,), str(array.dtype).rpartition(".")[2])
        start, second = self.address(memory), self.address(memory[1:])
        assert start is not None  # both are contiguous
        assert second is not None
        first = -start % _ALIGNMENT // (second - start)
        copy = memory[first : first + size]
        copy[...] = self.xp.reshape(array, (-1,))
        return self.xp.reshape(copy, array.shape)

    @abstractmethod
    def address(self, array: Array) -> int | None:
        """Address of an array's memory; None if it is not contiguous."""

    @abstractmethod
    def wait(self) -> None:
        """Wait until all operations of the library are done."""

    def out_of_memory(self, error: BaseException) -> bool:
        """Whether an exception means that memory ran out."""
        return is_out_of_memory(error)


class CupyLibrary(DlpackLibrary):
    """CuPy on CuPy's current GPU, by default the first.

    Parameters
    ----------
    deterministic:
        Whether sums of windows repeat to the bit.
    budget_mb:
        MiB of the device that may be kept for patterns and patches; None is half of what is free.

    Raises
    ------
    ImportError
        If CuPy is not installed.
    """

    def __init__(self, *, deterministic: bool, budget_mb: int | None = None) -> None:
        import array_api_compat.cupy
        import cupy
        import cupyx

        super().__init__(array_api_compat.cupy, name="CuPy")
        self._cupy, self._cupyx = cupy, cupyx
        self._deterministic, self._budget_mb = deterministic, budget_mb

    @property
    def budget_bytes(self) -> int:
        """Bytes of the device still available for patterns and patches."""
        pool = self._cupy.get_default_memory_pool()
        if self._budget_mb is not None:
            return max(self._budget_mb * _MIB - int(pool.used_bytes()), 0)
        free, _ = self._cupy.cuda.Device().mem_info
        return int(free + pool.free_bytes()) // 2

    @property
    def number(self) -> int:
        """Number of the GPU in CUDA's order."""
        return int(self._cupy.cuda.Device().id)

    def address(self, array: Array) -> int | None:
        """Address of an array's memory; None if it is not contiguous."""
        return int(array.data.ptr) if array.flags.c_contiguous else None

    def wait(self) -> None:
        """Wait until all operations in CuPy's queue of this thread are done; threads share one queue."""
        self._cupy.cuda.get_current_stream().synchronize()

    def to_host(self, array: Array) -> AnyArray:
        """Convert an array to a NumPy array; waits for the device."""
        host: AnyArray = self._cupy.asnumpy(array)
        return host

    def add_at(self, target: Array, index: Array, values: Array) -> Array:
        """Add values to an array in place, at indices that may be there several times."""
        if index.shape[0] == 0:
            return target
        # Complex numbers are added as pairs, because the device has no atomic addition for them.
        real = target.real.dtype
        sums, parts = (array.view(real).reshape(array.shape[0], -1) for array in (target, values))
        if self._deterministic:
            add_repeatably(self, sums, index, parts, self._add_integers)
        else:
            self._cupyx.scatter_add(sums, index, parts)
        return target

    def _add_integers(self, target: Array, index: Array, values: Array) -> None:
        # Negative ones wrap around in unsigned numbers, and so do their sums; CuPy adds no others.
        self._cupyx.scatter_add(target.view("uint64"), index, values.view("uint64"))

    def solve_sparse(self, matrix: Sparse, right: AnyArray) -> AnyArray:
        """Solve a sparse symmetric positive definite system, as a dense one if it fits, which is faster."""
        n = matrix.shape[0]
        if 2 * 8 * n**2 > self.budget_bytes:
            return super().solve_sparse(matrix, right)
        entries = matrix.tocoo()
        dense = self.zeros((n * n,), "float64")
        dense[self.from_host(entries.row.astype(np.int64) * n + entries.col)] = self.from_host(entries.data)
        solution = self.to_host(self._cupy.linalg.solve(dense.reshape(n, n), self.from_host(right)))
        return solution if np.isfinite(solution).all() else super().solve_sparse(matrix, right)

    def out_of_memory(self, error: BaseException) -> bool:
        """Whether an exception means that memory ran out; if so, frees CuPy's unused memory."""
        if not super().out_of_memory(error):
            return False
        self._cupy.get_default_memory_pool().free_all_blocks()
        return True

    def poisson(self, mean: Array, seed: Sequence[int]) -> Array:
        """Poisson counts of a mean; the same for the same seed on one device."""
        return self.cast(self._cupy.random.default_rng(list(seed)).poisson(mean), "float32")


def choose_library(device: str, *, deterministic: bool, budget_mb: int | None) -> ArrayLibrary:
    """Choose CuPy if it works on the GPU, else NumPy, with a log message. ``device`` is TensorFlow's name."""
    try:
        library = CupyLibrary(deterministic=deterministic, budget_mb=budget_mb)
        number = int(device.rpartition(":")[2])
        if library.number != number:
            raise RuntimeError(
                f"it computes on GPU {library.number}; CUDA_VISIBLE_DEVICES={number} makes that the first"
            )
        with tf.device(device):
            tensor = library.to_tensor(library.from_tensor(tf.ones(_ALIGNMENT)) + 1.0)
            if not bool(tf.reduce_all(tensor == 2.0)):
                raise RuntimeError("it does not share memory with TensorFlow")
    except Exception as error:  # a CuPy that does not fit the driver can raise anything
        missing = isinstance(error, ImportError)
        remedy = ". Install it with: python -m pip install cupy-cuda12x" if missing else ""
        _log.warning(
            "Stitching and refinement run on the host, because CuPy cannot be used on %s: %s%s.",
            device,
            " ".join(str(error).split()),
            remedy,
        )
        return NUMPY
    _log.info("Stitching and refinement run on %s with CuPy.", device)
    return library
