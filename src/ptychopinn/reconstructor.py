"""Protocols, capabilities, specifications and result types of reconstructors.

A backend predicts patches; the core does everything else, such as stitching and files.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from pydantic import BaseModel

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary
from ptychopinn.config.infer import InferConfig
from ptychopinn.config.model import ModelConfig
from ptychopinn.config.train import ResolvedTrainConfig, TrainConfig
from ptychopinn.cores import short_waits
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import PluginError, ResourceError
from ptychopinn.failures import is_out_of_memory
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.short_repr import ShortRepr
from ptychopinn.typing import ComplexArray, IntArray, StrPath

ClassT = TypeVar("ClassT")


@dataclass(frozen=True, repr=False)
class PatchBatch(ShortRepr):
    """Predicted patches of some patterns."""

    indices: IntArray  # (b,) int64: the patterns, as indices into the scan
    # (b, n, n) complex64 of the prediction's library, n <= N, each up to a constant phase: the object patches
    # ``object[y + r_y - (n-1)/2, x + r_x - (n-1)/2]``.
    patches: Array


@dataclass(frozen=True, repr=False)
class Prediction(ShortRepr):
    """A stream of patches and the probe that weights them."""

    # (modes, N, N) complex64 of the library, scaled to counts of this scan, with the detector's offset, so that
    # ``ptychopinn.forward`` predicts the measured counts from it and the object.
    probe: Array
    patch_size: int  # n, the width of the patches
    batches: Iterator[PatchBatch]  # yields `PatchBatch`; each pattern occurs exactly once
    library: ArrayLibrary = NUMPY  # library of probe and patches; stitching and refinement compute with it
    # Patterns of the scan that the prediction kept on the device; None if it kept none.
    patterns: Patterns | None = None

    def on_host(self) -> Prediction:
        """The prediction in NumPy arrays, converted batch by batch."""
        library = self.library
        batches = (PatchBatch(batch.indices, library.to_host(batch.patches)) for batch in self.batches)
        return Prediction(library.to_host(self.probe), self.patch_size, batches)

    def collect(self, count: int) -> ComplexArray:
        """The patches of all batches on the host, by the index of their pattern; missing ones are 0.

        Returns
        -------
        (count, n, n) complex64.
        """
        found = np.zeros((count, self.patch_size, self.patch_size), np.complex64)
        for batch in self.batches:
            found[batch.indices] = self.library.to_host(batch.patches)
        return found


def every_pattern_once(batches: Iterator[PatchBatch], count: int) -> Iterator[PatchBatch]:
    """The batches of a prediction, checked.

    Raises
    ------
    PluginError
        After the last batch, if the backend omitted a pattern or predicted one twice.
    """
    times = np.zeros(count, np.int64)
    for batch in batches:
        np.add.at(times, batch.indices, 1)
        yield batch
    if (times != 1).any():
        raise PluginError(
            f"The backend predicted {int((times > 0).sum())} of {count} patterns, {int((times > 1).sum())} of them "
            "more than once.",
            "Use another backend; this one violates the protocol. The conformance kit shows where.",
        )


class TrainStatus(StrEnum):
    """How a training ended; the model is usable in each case."""

    FINISHED = "finished"  # all epochs done
    STOPPED_EARLY = "stopped_early"  # early stopping
    TIMED_OUT = "timed_out"  # max_time was reached
    CANCELLED = "cancelled"  # the monitor was cancelled


@dataclass(frozen=True, repr=False)
class TrainResult(ShortRepr):
    """Result of a training."""

    status: TrainStatus
    # Column name to values, one per epoch: ``epoch``, ``seconds``, ``loss``, the terms of the loss and, with
    # validation, ``validation_loss``.
    history: Mapping[str, list[float]]
    seconds: float
    patterns_seen: int  # how many patterns, measured or simulated, the training has processed
    warnings: tuple[str, ...] = ()


class TrainingInterrupted(KeyboardInterrupt):
    """A training was interrupted (Ctrl-C twice, or in a notebook); the instance has the model of the last step."""

    def __init__(self, result: TrainResult) -> None:
        super().__init__("The training was interrupted.")
        self.result = result


@runtime_checkable
class ResolvesTraining(Protocol):
    """A reconstructor whose training defaults depend on the device; others use those of a CPU."""

    def resolve(self, config: TrainConfig) -> ResolvedTrainConfig:
        """Fill in the defaults of the device: `TrainConfig.resolved`."""
        ...


@runtime_checkable
class TakesWeights(Protocol):
    """A reconstructor whose training can start from weights of another network."""

    def start_from(self, path: StrPath) -> None:
        """Start the next training from those tensors of an archive that fit this network."""
        ...


@runtime_checkable
class TrainsTogether(Protocol):
    """A reconstructor that can train in several processes, which a launcher starts; the first one leads."""

    @classmethod
    def follow_launched(cls, options: Any, monitor: Monitor) -> bool:
        """Train as the first process says. Return False at once if this is the first process, or the only one."""
        ...


@runtime_checkable
class Reconstructor(Protocol):
    """A trainable reconstructor with one network.

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
        """Train on ``data``; with ``checkpoint_dir``, write checkpoints and resume from the newest one there.

        A `ptychopinn.errors.TrainingError` leaves the instance with its last good weights.
        """
        ...

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        """Predict the patch of every pattern, as a stream of batches."""
        ...

    def save(self, path: StrPath) -> None:
        """Write this instance as a model archive (`ptychopinn.bundle`)."""
        ...

    @classmethod
    def load(cls, path: StrPath, options: Any = None) -> Self:
        """Read an archive that `save` wrote, in this or another backend."""
        ...


class SolverResult(Protocol):
    """Result of a `Solver`."""

    @property
    def object(self) -> ComplexArray:
        """(H, W) complex64, in the frame of `ptychopinn.solvers.frame_of` the scan."""
        ...

    @property
    def probe(self) -> ComplexArray:
        """(modes, N, N) complex64 in counts, the probe that belongs to the object."""
        ...


@runtime_checkable
class Solver(Protocol):
    """An iterative solver, which needs no training and makes no patches (ePIE, pty-chi).

    Construct with ``Solver(options)``, an instance of the spec's options model.
    """

    def reconstruct(self, data: ScanDataset, *, monitor: Monitor = NULL_MONITOR) -> SolverResult:
        """Reconstruct a scan."""
        ...


class Capability(StrEnum):
    """Abilities that not every backend has; the conformance kit skips tests of missing ones."""

    CPU = "cpu"
    CUDA = "cuda"
    PINN = "pinn"
    SUPERVISED = "supervised"
    SIMULATED_OBJECTS = "simulated_objects"
    RESUME = "resume"


@dataclass(frozen=True)
class PluginSpec(Generic[ClassT]):
    """Specification of a backend or solver, readable without importing its packages."""

    noun: ClassVar[str]

    name: str  # what ``--backend`` takes ("torch"), or the name of a solver in comparisons ("epie")
    summary: str  # one line for lists and menus
    import_string: str  # ``"package.module:Class"``; imported only when used
    options: type[BaseModel]  # pydantic model of its own options; it must not import the packages either
    _: KW_ONLY
    requires: tuple[str, ...] = ()  # import names of required packages, to check them without importing
    install_hint: str = ""  # a command that installs missing packages

    @property
    def missing_packages(self) -> tuple[str, ...]:
        """The missing ones of ``requires``, found without importing them."""
        return tuple(name for name in self.requires if importlib.util.find_spec(name.partition(".")[0]) is None)

    def load_class(self) -> type[ClassT]:
        """Import the class.

        Raises
        ------
        PluginError
            If that fails, with the reason. If packages are missing, with the install hint.
        ResourceError
            If memory does not suffice.
        """
        module_name, _, attribute = self.import_string.partition(":")
        try:
            with short_waits():
                loaded: type[ClassT] = getattr(importlib.import_module(module_name), attribute)
        except Exception as error:  # a broken framework can raise anything
            if is_out_of_memory(error):
                raise ResourceError(
                    f"Memory does not suffice to import the {self.noun} '{self.name}' ({error!s:.200}).",
                    "Free memory, or raise the limit.",
                ) from error
            remedy = (
                "All packages that it needs are installed, so one of them is broken, or does not fit the others or "
                "this machine: install it again, and see 'ptychopinn doctor'."
            )
            if missing := self.missing_packages:
                hint = self.install_hint
                remedy = f"Install it with: {hint}" if hint else f"Install {', '.join(missing)}."
            raise PluginError(
                f"The {self.noun} '{self.name}' cannot be used: {type(error).__name__}: {error}.", remedy
            ) from error
        return loaded


@dataclass(frozen=True)
class ModelSpec:
    """A trained model in a distribution, for any scan with patterns of its size."""

    name: str  # unique among all plugins ("family-64")
    path: Path  # its archive
    N: int  # width of the patterns
    summary: str  # one line for lists


@dataclass(frozen=True)
class ReconstructorSpec(PluginSpec[Reconstructor]):
    """Specification of a backend."""

    noun = "backend"

    capabilities: frozenset[Capability] = field(default_factory=frozenset)


@dataclass(frozen=True)
class SolverSpec(PluginSpec[Solver]):
    """Specification of a `Solver`."""

    noun = "solver"
