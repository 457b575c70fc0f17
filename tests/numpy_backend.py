"""A complete backend in plain NumPy, for tests of what surrounds a backend.

Its network is one number, the step of a few projections that start from a flat patch; training tries a longer or a
shorter one in every epoch and keeps what explains the patterns better.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any, Self

import numpy as np

from ptychopinn.bundle import ArchiveKind, Manifest, TrainingSummary, Writer, read_bundle, write_bundle
from ptychopinn.checkpoints import CheckpointStore
from ptychopinn.config import ExecutionOptions, InferConfig, ModelConfig, TrainConfig
from ptychopinn.data.batches import read_patterns
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.errors import DataError, TrainingError, UsageError
from ptychopinn.hookspecs import hookimpl
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstructor import Capability, Prediction, ReconstructorSpec, TrainResult, TrainStatus
from ptychopinn.streaming import stream_patches
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray, StrPath

PROJECTIONS = 8
FIRST_STEP = 0.2


class NumpyOptions(ExecutionOptions):
    """Options that make it fail where a test wants it."""

    patterns_that_fit: int = 10**9
    loss_breaks: bool = False


@dataclass
class State:
    """What training fits."""

    step: float
    epoch: int = 0


class NumpyReconstructor:
    """See the module."""

    def __init__(self, model: ModelConfig, options: NumpyOptions | None = None) -> None:
        self._config = model
        self._options = options or NumpyOptions()
        self._state: State | None = None
        self._summary: TrainingSummary | None = None

    @property
    def model(self) -> ModelConfig:
        return self._config

    def train(
        self,
        data: ScanDataset,
        config: TrainConfig,
        *,
        validation: ScanDataset | None = None,
        checkpoint_dir: StrPath | None = None,
        monitor: Monitor = NULL_MONITOR,
    ) -> TrainResult:
        self._check(data)
        store, epoch, status = None, 0, TrainStatus.FINISHED
        self._state = State(FIRST_STEP)
        if checkpoint_dir is not None:
            store = CheckpointStore(checkpoint_dir, top_k=config.checkpoint_top_k, mode=config.checkpoint_mode)
            if (found := store.newest()) is not None:
                self._state.step = float(found.weights["step"][0])
                epoch = int(found.weights["epoch"][0])
        history: dict[str, list[float]] = {name: [] for name in ("epoch", "seconds", "loss", "step")}
        counts = read_patterns(data, np.arange(len(data)))
        probe = self._probe(data)
        for done in range(epoch + 1, (config.nepochs or 3) + 1):
            if monitor.cancelled:
                status = TrainStatus.CANCELLED
                break
            steps = self._state.step * np.array([1.0, 1.3])
            losses = [self._misfit(counts, probe, step) for step in steps]
            self._state.step = float(steps[int(np.argmin(losses))])
            for name, value in zip(history, (done, 0.1 * done, min(losses), self._state.step), strict=True):
                history[name].append(float(value))
            if self._options.loss_breaks:
                raise TrainingError("The loss is nan.", "Lower it.")
            if store is not None:
                arrays: dict[str, AnyArray] = {
                    "step": np.array([self._state.step]),
                    "epoch": np.array([done]),
                }
                store.save(done, self._manifest(ArchiveKind.CHECKPOINT), arrays, min(losses))
            monitor.report("train", done, config.nepochs or 3, {"loss": min(losses)})
        self._summary = TrainingSummary(status=status.value, epochs=len(history["epoch"]))
        return TrainResult(status, history, 0.1 * len(history["epoch"]), len(data) * len(history["epoch"]))

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        state = self._trained()
        self._check(data)
        probe = self._probe(data)

        def predict(counts: FloatArray) -> ComplexArray:
            if len(counts) > self._options.patterns_that_fit:
                raise MemoryError
            return project(counts, probe, state.step)[0]

        batches = stream_patches(
            data, config.inference_batch_size, predict, out_of_memory=lambda error: False, monitor=monitor
        )
        return Prediction(probe, self._config.patch_size, batches)

    def save(self, path: StrPath) -> None:
        weights = {"network/step": np.array([self._trained().step], np.float32)}
        manifest = self._manifest(ArchiveKind.MODEL).model_copy(update={"training": self._summary})
        write_bundle(path, manifest, weights)

    @classmethod
    def load(cls, path: StrPath, options: Any = None) -> Self:
        bundle = read_bundle(path)
        instance = cls(bundle.manifest.model, options)
        instance._state = State(float(bundle.weights["network/step"][0]))
        return instance

    def _probe(self, data: ScanDataset) -> ComplexArray:
        return probe_in_counts(data, fit_scaling(data), follow_offset=True)

    def _misfit(self, counts: FloatArray, probe: ComplexArray, step: float) -> float:
        return project(counts, probe, step)[1]

    def _check(self, data: ScanDataset) -> None:
        if data.N != self._config.N:
            raise DataError(f"The patterns are {data.N} wide; this model has N = {self._config.N}.", "Crop them.")

    def _trained(self) -> State:
        if self._state is None:
            raise UsageError("This reconstructor is not trained.", "Call train().")
        return self._state

    def _manifest(self, kind: ArchiveKind) -> Manifest:
        writer = Writer(ptychopinn=metadata.version("ptychopinn"), backend="numpy")
        return Manifest(kind=kind, writer=writer, model=self._config)


def project(counts: FloatArray, probe: ComplexArray, step: float) -> tuple[ComplexArray, float]:
    """(b, N, N) counts, DC at [0, 0], to (b, N/2, N/2) patches, and the misfit of the amplitudes at the end."""
    size, n = probe.shape[-1], probe.shape[-1] // 2
    inner = slice((size - n) // 2, (size + n) // 2)
    direction = probe.conj() / (np.abs(probe) ** 2).sum(axis=0).max()
    measured = np.sqrt(counts)[:, None]
    patch = np.ones(counts.shape, np.complex64)
    misfit = 0.0
    for _ in range(PROJECTIONS):
        field = np.fft.fft2(probe * patch[:, None], norm="ortho")
        modelled = np.sqrt((np.abs(field) ** 2).sum(axis=1, keepdims=True))
        misfit = float(np.sqrt(((measured - modelled) ** 2).sum() / (measured**2).sum()))
        change = np.fft.ifft2(field * (measured / np.maximum(modelled, 1e-3) - 1), norm="ortho")
        patch[:, inner, inner] += step * (direction * change).sum(axis=1)[:, inner, inner]
    return patch[:, inner, inner].astype(np.complex64), misfit


@hookimpl
def ptychopinn_reconstructors() -> list[ReconstructorSpec]:
    """What this module registers when it is named as an entry point."""
    return [
        ReconstructorSpec(
            name="numpy",
            summary="Plain NumPy, for tests",
            import_string="numpy_backend:NumpyReconstructor",
            options=NumpyOptions,
            capabilities=frozenset({Capability.CPU, Capability.PINN, Capability.RESUME}),
        )
    ]
