"""What a reconstructor is: protocols, capabilities, specification and result types.

A backend predicts patches; the core places them. So a backend knows nothing of stitching, products or
files other than its model archive.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from pydantic import BaseModel

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary
from ptychopinn.config.infer import InferConfig
from ptychopinn.config.model import ModelConfig
from ptychopinn.config.train import ResolvedTrainConfig, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import PluginError
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.typing import ComplexArray, IntArray, StrPath


@dataclass(frozen=True)
class PatchBatch:
    """Predicted patches of some patterns.

    Attributes
    ----------
    indices:
        (b,) int64: the patterns, as indices into the scan.
    patches:
        (b, n, n) complex64 of the prediction's library, n <= N: of each, up to one phase a patch, the object patch
        ``object[y + r_y - (n-1)/2, x + r_x - (n-1)/2]``.
    """

    indices: IntArray
    patches: Array


@dataclass(frozen=True)
class Prediction:
    """A stream of patches and the probe that weights them.

    Attributes
    ----------
    probe:
        (modes, N, N) complex64 of the library, scaled to counts of this scan and with the detector's offset in it: with
        it, ``ptychopinn.forward`` predicts the measured counts from the object.
    patch_size:
        n, the width of every patch.
    batches:
        Yields `PatchBatch`; every pattern comes exactly once.
    library:
        Whose arrays probe and patches are: what follows is computed with it, where they are.
    patterns:
        Of the scan, where the prediction left them; None if it kept none.
    """

    probe: Array
    patch_size: int
    batches: Iterator[PatchBatch]
    library: ArrayLibrary = NUMPY
    patterns: Patterns | None = None

    def on_host(self) -> Prediction:
        """The same in NumPy arrays, each batch as it comes: what follows is computed on the host."""
        library = self.library
        batches = (PatchBatch(batch.indices, library.to_host(batch.patches)) for batch in self.batches)
        return Prediction(library.to_host(self.probe), self.patch_size, batches)

    def collect(self, count: int) -> ComplexArray:
        """Patches of all batches by the index of their pattern, on the host; 0 where none came.

        Returns
        -------
        (count, n, n) complex64.
        """
        found = np.zeros((count, self.patch_size, self.patch_size), np.complex64)
        for batch in self.batches:
            found[batch.indices] = self.library.to_host(batch.patches)
        return found


class TrainStatus(StrEnum):
    """How a training ended; every one leaves a usable model."""

    FINISHED = "finished"  # all epochs done
    STOPPED_EARLY = "stopped_early"  # early stopping found no more progress
    TIMED_OUT = "timed_out"  # max_time was used up
    CANCELLED = "cancelled"  # the monitor was cancelled


@dataclass(frozen=True)
class TrainResult:
    """What came of a training.

    Attributes
    ----------
    status:
        How it ended.
    history:
        Column name to values, one entry an epoch: ``epoch``, ``seconds``, ``loss`` and, with validation,
        ``validation_loss``, and whatever terms the loss has.
    seconds:
        Wall time spent.
    patterns_seen:
        Patterns (measured or simulated) the optimizer saw.
    warnings:
        What a user should know, as sentences.
    """

    status: TrainStatus
    history: Mapping[str, list[float]]
    seconds: float
    patterns_seen: int
    warnings: tuple[str, ...] = ()


@runtime_checkable
class ResolvesTraining(Protocol):
    """A reconstructor whose device says what a training does where nobody else says it; the rest train as on a CPU."""

    def resolve(self, config: TrainConfig) -> ResolvedTrainConfig:
        """A training with what depends on the device filled in: `TrainConfig.resolved`."""
        ...


@runtime_checkable
class Reconstructor(Protocol):
    """A trainable reconstructor: one network and everything needed to use it.

    Construct with ``Reconstructor(model: ModelConfig, options: BaseModel | None)``; ``options`` is an instance of the
    spec's options model.
    """

    def __init__(self, model: ModelConfig, options: Any = None) -> None: ...

    @property
    def model(self) -> ModelConfig:
        """The configuration of the network."""
        ...

    def train(
        self,
        data: ScanDataset,
        config: TrainConfig,
        *,
        validation: ScanDataset | None = None,
        checkpoint_dir: StrPath | None = None,
        monitor: Monitor = NULL_MONITOR,
    ) -> TrainResult:
        """Fit this instance to ``data``; with ``checkpoint_dir``, leave checkpoints, resume from the newest there.

        A `ptychopinn.errors.TrainingError` leaves the instance with its last good weights.
        """
        ...

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        """Predict every pattern's patch, in a stream of batches."""
        ...

    def save(self, path: StrPath) -> None:
        """Write this instance as a model archive (`ptychopinn.bundle`)."""
        ...

    @classmethod
    def load(cls, path: StrPath, options: Any = None) -> Self:
        """Read an archive that `save` wrote, in this or another backend."""
        ...


class SolverResult(Protocol):
    """What a `Solver` found."""

    @property
    def object(self) -> ComplexArray:
        """(H, W) complex64, in the frame of `ptychopinn.solvers.frame_of` the scan."""
        ...

    @property
    def probe(self) -> ComplexArray:
        """(modes, N, N) complex64, in counts: with it the object predicts the patterns."""
        ...


@runtime_checkable
class Solver(Protocol):
    """A solver that makes an object and no patches, and is not trained (ePIE, pty-chi).

    Construct with ``Solver(options)``, an instance of the spec's options model.
    """

    def reconstruct(self, data: ScanDataset, *, monitor: Monitor = NULL_MONITOR) -> SolverResult:
        """Reconstruct a scan."""
        ...


class Capability(StrEnum):
    """Abilities that not every backend has; skips of the conformance kit come from these."""

    CPU = "cpu"
    CUDA = "cuda"
    PINN = "pinn"
    SUPERVISED = "supervised"
    SIMULATED_OBJECTS = "simulated_objects"
    RESUME = "resume"


@dataclass(frozen=True)
class ReconstructorSpec:
    """What a backend registers: readable without importing its framework.

    Attributes
    ----------
    name:
        What ``--backend`` takes ("torch").
    summary:
        One line for lists and menus.
    import_string:
        ``"package.module:Class"`` of the `Reconstructor`; imported only when used.
    options:
        pydantic model of the backend's own options; it must not import the framework.
    capabilities:
        What this backend can do.
    requires:
        Import names of the framework, to tell whether it is installed without importing it.
    install_hint:
        A command that installs what is missing.
    """

    name: str
    summary: str
    import_string: str
    options: type[BaseModel]
    capabilities: frozenset[Capability] = field(default_factory=frozenset)
    requires: tuple[str, ...] = ()
    install_hint: str = ""

    def load_class(self) -> type[Reconstructor]:
        """Import the backend's class.

        Raises
        ------
        PluginError
            If the framework or the class cannot be imported; carries the reason and the install hint.
        """
        loaded: type[Reconstructor] = _load(self.import_string, f"backend '{self.name}'", self.install_hint)
        return loaded


@dataclass(frozen=True)
class SolverSpec:
    """What a distribution registers of an `Solver`: readable without importing what it computes with.

    Attributes
    ----------
    name:
        What a comparison calls it ("epie").
    summary:
        One line for lists and menus.
    import_string:
        ``"package.module:Class"`` of the `Solver`; imported only when used.
    options:
        pydantic model of its options; it must not import what the solver computes with.
    requires:
        Import names of what it needs, to tell whether that is installed without importing it.
    install_hint:
        A command that installs what is missing.
    """

    name: str
    summary: str
    import_string: str
    options: type[BaseModel]
    requires: tuple[str, ...] = ()
    install_hint: str = ""

    def load_class(self) -> type[Solver]:
        """Import the solver's class.

        Raises
        ------
        PluginError
            If it cannot be imported; carries the reason and the install hint.
        """
        loaded: type[Solver] = _load(self.import_string, f"solver '{self.name}'", self.install_hint)
        return loaded


def _load(import_string: str, what: str, install_hint: str) -> Any:
    module_name, _, attribute = import_string.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # a framework that is there but broken raises whatever it likes
        raise PluginError(
            f"The {what} cannot be used: {error}.",
            f"Install it with: {install_hint}" if install_hint else "Install what it needs.",
        ) from error
