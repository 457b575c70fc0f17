"""Torch tensors on a device as an array library of the core: what follows a prediction runs where the network does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import array_api_compat.torch
import numpy as np
import torch
from torch import Tensor

from ptychopinn.arrays import ArrayLibrary, ScatterLibrary
from ptychopinn.arrays.library import Sparse
from ptychopinn.typing import AnyArray
from ptychopinn_torch.numerics import exact_float32

_PINNED_BYTES = 1 << 20  # of an array worth page-locked memory, from which a copy need not be waited for
_MIB = 1 << 20
# Of allocators and libraries that raise a plain RuntimeError.
_MEMORY_SIGNS = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "ALLOC_FAILED",
    "could not create a primitive",
    "unable to find an engine",  # of a convolution whose workspace does not fit
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of PyTorch says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _MEMORY_SIGNS)


class TorchLibrary(ScatterLibrary):
    """Torch on one device.

    Parameters
    ----------
    device:
        That computes.
    deterministic:
        Whether sums of windows repeat to the bit.
    budget_mb:
        MiB of the device that may be kept for patterns and patches; None is half of what is free.
    """

    def __init__(self, device: torch.device, *, deterministic: bool, budget_mb: int | None = None) -> None:
        super().__init__(array_api_compat.torch, device, f"torch on {device}")
        self._deterministic, self._budget_mb = deterministic, budget_mb

    @property
    def budget_bytes(self) -> int:
        """Bytes of the device that may still be kept for patterns and patches."""
        if self._budget_mb is not None:
            used = torch.cuda.memory_allocated(self.device) if self._is_cuda else 0
            return max(self._budget_mb * _MIB - used, 0)
        if not self._is_cuda:
            return 0
        free, _ = torch.cuda.mem_get_info(self.device)
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return (free + cached) // 2

    @property
    def _is_cuda(self) -> bool:
        return bool(self.device.type == "cuda")

    @contextmanager
    def session(self) -> Iterator[ArrayLibrary]:
        """Compute float32 as float32, and with algorithms that repeat if that was asked for."""
        with torch.no_grad(), exact_float32(deterministic=self._deterministic):
            yield self

    def from_host(self, array: AnyArray) -> Tensor:
        """A NumPy array as a tensor; a large one goes through page-locked memory, and is not waited for."""
        array = np.ascontiguousarray(array)
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        if self._is_cuda:
            tensor = tensor.pin_memory() if array.nbytes >= _PINNED_BYTES else tensor
            return tensor.to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def from_blocks(
        self, shape: tuple[int, ...], blocks: Iterable[AnyArray], prepare: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """One tensor of a shape, of blocks of rows that come from the host one after another."""
        whole: Tensor | None = None
        row = 0
        for block in blocks:
            tensor = prepare(self.from_host(block))
            if whole is None:
                whole = torch.empty(shape, dtype=tensor.dtype, device=self.device)
            whole[row : row + len(tensor)] = tensor
            row += len(tensor)
        assert whole is not None  # nobody asks for nothing
        return whole

    def to_host(self, array: Tensor) -> AnyArray:
        """A tensor as a NumPy array; it waits for the device."""
        host: AnyArray = array.detach().resolve_conj().cpu().numpy()
        return host

    def cast(self, array: Tensor, dtype: str) -> Tensor:
        """A tensor in another dtype, by its name."""
        return array.to(getattr(torch, dtype))

    def fft2(self, array: Tensor, norm: str = "backward") -> Tensor:
        """Fourier transform over the last two axes."""
        transformed: Tensor = torch.fft.fft2(array, norm=norm)
        return transformed

    def ifft2(self, array: Tensor, norm: str = "backward") -> Tensor:
        """The inverse of `fft2`."""
        transformed: Tensor = torch.fft.ifft2(array, norm=norm)
        return transformed

    def complex(self, real: Tensor, imag: Tensor) -> Tensor:
        """A complex tensor of two real ones."""
        return torch.complex(real, imag)

    def as_complex(self, pairs: Tensor) -> Tensor:
        """(..., 2) real and imaginary parts to (...,) complex, in the same memory."""
        return torch.view_as_complex(pairs)

    def squared_sum(self, array: Tensor) -> Tensor:
        """Sum of the squares of a real tensor, float64."""
        flat = array.reshape(-1)
        return torch.dot(flat, flat).double()

    def take(self, array: Tensor, index: AnyArray) -> Tensor:
        """Rows by an index on the host."""
        return array.index_select(0, self.from_host(index))

    def add_at(self, target: Tensor, index: Tensor, values: Tensor) -> Tensor:
        """Add values to a tensor in place, at indices that may be there several times."""
        return target.index_add_(0, index, values)

    def solve_sparse(self, matrix: Sparse, right: AnyArray) -> AnyArray:
        """Solution of a sparse symmetric positive definite system; on a GPU a dense one is quicker, where it fits."""
        n = matrix.shape[0]
        if not self._is_cuda or 2 * 8 * n**2 > self.budget_bytes:
            return super().solve_sparse(matrix, right)
        entries = matrix.tocoo()
        dense = torch.zeros(n * n, dtype=torch.float64, device=self.device)
        dense[self.from_host(entries.row.astype(np.int64) * n + entries.col)] = self.from_host(entries.data)
        factor, failed = torch.linalg.cholesky_ex(dense.view(n, n))
        if int(failed):  # rounding made it indefinite
            return super().solve_sparse(matrix, right)
        return self.to_host(torch.cholesky_solve(self.from_host(right)[:, None], factor)[:, 0])

    def out_of_memory(self, error: BaseException) -> bool:
        """Whether an exception says that memory ran out; then gives back what the allocator holds."""
        if not is_out_of_memory(error):
            return False
        if self._is_cuda:
            torch.cuda.empty_cache()
        return True

    def poisson(self, mean: Tensor, seed: Sequence[int]) -> Tensor:
        """Poisson counts of a mean; the same for the same seed on one device."""
        state = int(np.random.SeedSequence(list(seed)).generate_state(1, np.uint64)[0])
        generator = torch.Generator(device=self.device)
        generator.manual_seed(state & ((1 << 63) - 1))
        return torch.poisson(mean, generator)
