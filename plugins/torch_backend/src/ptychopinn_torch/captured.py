"""A step of a training or of the passes as one CUDA graph: the host launches it once, not every operation.

On a card the host needs longer to launch the operations of a step than the card needs to compute them. `torch.compile`
would launch fewer too, but it needs a compiler on the user's machine (Triton), generates no code for complex numbers,
and has to compile before it trains. A graph is recorded within one step, and replays the same kernels.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Generic, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

_log = logging.getLogger("ptychopinn.torch")
WARM_UP_STEPS = 3  # before the recording: libraries choose kernels and make plans and workspaces in them

ResultT = TypeVar("ResultT")
Signature: TypeAlias = tuple[tuple[object, ...], ...]


class Recorder(Protocol):
    """Records operations of a device."""

    def warm_up(self, compute: Callable[[], ResultT]) -> ResultT:
        """Compute where operations will be recorded."""
        ...

    def record(self, compute: Callable[[], ResultT]) -> tuple[ResultT, Callable[[], object]]:
        """Record the operations of a function without computing them.

        Returns
        -------
        The result of the function, and a function that replays the operations: each call writes new values into the
        tensors of the result.
        """
        ...


class CudaRecorder:
    """CUDA graphs."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = _recording_stream(device)

    def warm_up(self, compute: Callable[[], ResultT]) -> ResultT:
        """Compute in the stream that operations are recorded in."""
        main = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(main)
        with torch.cuda.stream(self._stream):
            result = compute()
        main.wait_stream(self._stream)
        return result

    def record(self, compute: Callable[[], ResultT]) -> tuple[ResultT, Callable[[], object]]:
        """Record a graph; other threads may read and upload batches meanwhile.

        `torch.cuda.graph` would collect garbage and empty the allocator's cache first, which takes longer than passes
        over a small scan.
        """
        graph = torch.cuda.CUDAGraph()
        main = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(main)
        with torch.cuda.stream(self._stream):
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                result = compute()
            except BaseException:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about what was recorded before the error
                    graph.capture_end()
                raise
            graph.capture_end()
        main.wait_stream(self._stream)
        return result, graph.replay


def make_recorder(device: torch.device) -> Recorder | None:
    """Recorder of steps; None on a CPU."""
    return CudaRecorder(device) if device.type == "cuda" else None


@cache
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream of a card in which operations are recorded: cuBLAS keeps 33 MiB for every stream that it saw."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, eq=False)
class _Recording(Generic[ResultT]):
    signature: Signature
    inputs: dict[str, Tensor]
    result: ResultT
    replay: Callable[[], object]


class CapturedStep(Generic[ResultT]):
    """Steps, recorded once and replayed for every batch of the same shapes.

    The first steps are computed operation by operation. So are steps on batches of other shapes, and all steps without
    a recorder or if recording fails.
    """

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self._seen: Counter[Signature] = Counter()
        self._recording: _Recording[ResultT] | None = None

    def __call__(
        self,
        batch: Mapping[str, Tensor],
        eager: Callable[[], ResultT],
        recorded: Callable[[Mapping[str, Tensor]], ResultT],
        state: Sequence[Tensor] = (),
    ) -> ResultT:
        """Take a step.

        Parameters
        ----------
        recorded:
            Takes the step on the batch that it is given, in operations on tensors alone. Other values that change from
            step to step must be in tensors that stay the same objects.
        state:
            Tensors that the step reads or changes and that may be replaced by others. A step with other ones than the
            recorded step is computed operation by operation.

        Returns
        -------
        The result of the step. The next replayed step overwrites it.
        """
        if self._recorder is None:
            return eager()
        shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in batch.items())
        signature = (*shapes, tuple(tensor.data_ptr() for tensor in state))
        if self._recording is None:
            if self._seen[signature] < WARM_UP_STEPS:
                self._seen[signature] += 1
                return self._recorder.warm_up(eager)
            self._recording = self._record(self._recorder, signature, batch, recorded)
        if self._recording is None or self._recording.signature != signature:
            return eager()
        for name, tensor in self._recording.inputs.items():
            tensor.copy_(batch[name])
        self._recording.replay()
        return self._recording.result

    def _record(
        self,
        recorder: Recorder,
        signature: Signature,
        batch: Mapping[str, Tensor],
        recorded: Callable[[Mapping[str, Tensor]], ResultT],
    ) -> _Recording[ResultT] | None:
        try:
            inputs = {name: tensor.clone() for name, tensor in batch.items()}
            result, replay = recorder.record(lambda: recorded(inputs))
        except RuntimeError as error:  # torch.OutOfMemoryError and torch.AcceleratorError are such
            self._recorder = None
            _log.warning("Steps are not recorded as a CUDA graph, and take longer: %.300s", error)
            return None
        _log.info("Steps are replayed as a CUDA graph; batches of other sizes are computed without it.")
        return _Recording(signature, inputs, result, replay)
