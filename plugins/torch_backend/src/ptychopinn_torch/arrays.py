"""Array library of torch tensors, so that stitching and refinement run on the device of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import array_api_compat.torch
import numpy as np
import torch
from torch import Tensor

from ptychopinn import failures
from ptychopinn.arrays import ArrayLibrary, RepeatedStep, ScatterLibrary, slices_of
from ptychopinn.arrays.library import ResultT, Sparse
from ptychopinn.arrays.scatter import add_repeatably
from ptychopinn.parallel import spread
from ptychopinn.typing import AnyArray
from ptychopinn_torch.captured import CapturedStep, Recorder, make_recorder
from ptychopinn_torch.numerics import any_order, exact_float32

_PINNED_BYTES = 1 << 20  # smallest array that is uploaded asynchronously from page-locked memory
_COPIED_PARTS = 16
_MIB = 1 << 20
_MEMORY_SIGNS = (
    "DefaultCPUAllocator",
    "ALLOC_FAILED",
    "unable to find an engine",  # of a convolution whose workspace does not fit
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, in PyTorch's words too: the one place where they are known."""
    if isinstance(error, torch.OutOfMemoryError) or failures.is_out_of_memory(error):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _MEMORY_SIGNS)


def _add_integers(target: Tensor, index: Tensor, values: Tensor) -> None:
    """Add rows, in any order: PyTorch would sort them first, as it must do with fractions for sums that repeat."""
    with any_order():
        target.index_add_(0, index, values)


def _pinned(array: AnyArray) -> Tensor:
    """Copy an array to page-locked memory, by several threads: one is slower than the upload."""
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    tensor = torch.empty(array.shape, dtype=dtype, pin_memory=True)
    there, rows = tensor.numpy(), -(-len(array) // _COPIED_PARTS)
    spread(lambda part: np.copyto(there[part], array[part]), slices_of(len(array), rows))
    return tensor


class _RecordedStep(RepeatedStep[ResultT]):
    """Steps that are recorded as a CUDA graph."""

    def __init__(self, recorder: Recorder) -> None:
        self._captured: CapturedStep[ResultT] = CapturedStep(recorder)

    def __call__(
        self,
        inputs: Mapping[str, Tensor],
        state: Sequence[Tensor],
        compute: Callable[[Mapping[str, Tensor]], ResultT],
    ) -> ResultT:
        """Take the step."""
        return self._captured(inputs, lambda: compute(inputs), compute, state)


class TorchLibrary(ScatterLibrary):
    """Torch on one device.

    Parameters
    ----------
    deterministic:
        Whether sums of windows are bitwise reproducible.
    budget_mb:
        MiB of the device for patterns and patches; None: half of the free memory.
    """

    def __init__(self, device: torch.device, *, deterministic: bool, budget_mb: int | None = None) -> None:
        super().__init__(array_api_compat.torch, device, f"torch on {device}")
        self._deterministic, self._budget_mb = deterministic, budget_mb

    @property
    def budget_bytes(self) -> int:
        """Bytes of the device still available for patterns and patches."""
        if self._budget_mb is not None:
            used = torch.cuda.memory_allocated(self.device) if self._is_cuda else 0
            return max(self._budget_mb * _MIB - used, 0)
        if not self._is_cuda:
            return 0
        free, _ = torch.cuda.mem_get_info(self.device)
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return (free + cached) // 2

    @property
    def _adds_in_any_order(self) -> bool:
        """Whether sums would not repeat, though they are to."""
        return self._deterministic and self._is_cuda

    @property
    def _is_cuda(self) -> bool:
        return bool(self.device.type == "cuda")

    @contextmanager
    def session(self) -> Iterator[ArrayLibrary]:
        """Compute in true float32, with deterministic algorithms if they are enabled."""
        with torch.no_grad(), exact_float32(deterministic=self._deterministic):
            yield self

    def repeated_step(self) -> RepeatedStep[ResultT]:
        """A step that will be taken many times; on a card it becomes a CUDA graph."""
        recorder = make_recorder(self.device)
        return RepeatedStep() if recorder is None else _RecordedStep(recorder)

    def from_host(self, array: AnyArray) -> Tensor:
        """Convert a NumPy array to a tensor; a large one is uploaded asynchronously from page-locked memory."""
        if self._is_cuda and array.nbytes >= _PINNED_BYTES:
            return _pinned(array).to(self.device, non_blocking=True)
        array = np.ascontiguousarray(array)
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        return tensor.to(self.device, non_blocking=self._is_cuda)

    def to_host(self, array: Tensor) -> AnyArray:
        """Convert a tensor to a NumPy array; waits for the device."""
        host: AnyArray = array.detach().resolve_conj().cpu().numpy()
        return host

    def cast(self, array: Tensor, dtype: str) -> Tensor:
        """Convert a tensor to a dtype by its name."""
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
        if not self._adds_in_any_order:
            return target.index_add_(0, index, values)
        sums, parts = (torch.view_as_real(t) if t.is_complex() else t[:, None] for t in (target, values))
        add_repeatably(self, sums, index, parts, _add_integers)
        return target

    def solve_sparse(self, matrix: Sparse, right: AnyArray) -> AnyArray:
        """Solve a sparse symmetric positive definite system; on a GPU as a dense one, which is faster, if it fits."""
        n = matrix.shape[0]
        if not self._is_cuda or 2 * 8 * n**2 > self.budget_bytes:
            return super().solve_sparse(matrix, right)
        entries = matrix.tocoo()
        dense = torch.zeros(n * n, dtype=torch.float64, device=self.device)
        dense[self.from_host(entries.row.astype(np.int64) * n + entries.col)] = self.from_host(entries.data)
        factor, failed = torch.linalg.cholesky_ex(dense.view(n, n))
        if int(failed):  # indefinite because of rounding
            return super().solve_sparse(matrix, right)
        return self.to_host(torch.cholesky_solve(self.from_host(right)[:, None], factor)[:, 0])

    def out_of_memory(self, error: BaseException) -> bool:
        """Whether an exception means that memory ran out; if so, empties the cache of the allocator."""
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
