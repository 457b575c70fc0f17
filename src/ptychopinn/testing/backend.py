"""What a backend supplies to the kit, and the small trainings that the suites share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar

import numpy as np
import pytest

from ptychopinn.config import InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.config.build import build
from ptychopinn.config.model import SUPPORTED_N
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.plugins import GROUP
from ptychopinn.reconstructor import Capability, Reconstructor, ReconstructorSpec, TrainResult
from ptychopinn.simulate import simulate_scan
from ptychopinn.testing.processes import RunJob, run_in_subprocess
from ptychopinn.typing import ComplexArray

OFFSET_PX = (3.0, -2.0)  # large enough to be the detector's, and not a gradient of the object
_TINY_MODEL: Mapping[str, Any] = {"N": 32}
TINY_TRAIN: Mapping[str, Any] = {"nepochs": 2, "probe_refinement": 0}


@dataclass(frozen=True)
class Tolerances:
    """Tolerances. Patches, whose amplitude is near 1, are compared by the largest absolute difference."""

    repeated: float = 0.0  # patches of two identical trainings
    rounding: float = 1e-5  # patches of the same weights in other batches, or in another process
    dose: float = 1e-4  # patches of the same patterns at another dose
    forward: float = 1e-4  # counts of the forward model, over the brightest pixel
    parity: float = 1e-4  # patches of the same archive in another backend, over the mean amplitude
    # Objects from the same patches by the prediction's library and by NumPy, over the mean amplitude.
    devices: float = 1e-3
    fall: float = 0.9  # last loss of `BackendSuite.learn`, relative to its first
    residual: float = 0.1  # forward residual of the true object under the probe of a prediction
    likeness: float = 0.1  # minimum correlation of the patches of `BackendSuite.learn` with the object


@dataclass(frozen=True, eq=False)
class Trained:
    """A training and its result."""

    reconstructor: Reconstructor
    result: TrainResult

    def patches(self, scan: ScanDataset, **config: Any) -> ComplexArray:
        """(n, p, p) complex64: the patch of every pattern of a scan; missing ones are 0."""
        return self.reconstructor.infer(scan, InferConfig(**config)).collect(len(scan))


def difference(one: ComplexArray, other: ComplexArray) -> float:
    """Largest absolute difference; infinite if values are not finite or shapes differ."""
    if one.shape != other.shape:
        return np.inf
    worst = float(np.abs(one - other).max(initial=0.0))
    return worst if np.isfinite(worst) else np.inf


class KitSettings:
    """What every suite of tests has; a subclass sets what its backend needs."""

    # Fields of `ModelConfig` and `TrainConfig` that make a training take well under a second, over N = 32 and two
    # epochs.
    model: ClassVar[Mapping[str, Any]] = {}
    train: ClassVar[Mapping[str, Any]] = {}
    options: ClassVar[Mapping[str, Any]] = {}
    tolerances: ClassVar[Tolerances] = Tolerances()
    # Runs a job of `ptychopinn.testing.processes`, in a fresh process unless a subclass says otherwise.
    elsewhere: ClassVar[RunJob] = staticmethod(run_in_subprocess)

    @classmethod
    def entry_points(cls) -> Iterable[EntryPoint]:
        """The entry points in which to look for backends."""
        return entry_points(group=GROUP)


class BackendSuite(KitSettings):
    """The base of the suites of one backend."""

    spec: ClassVar[ReconstructorSpec]
    # Fields added to ``train`` with which the network learns the orientation of the tiny scan.
    learn: ClassVar[Mapping[str, Any]] = {"nepochs": 8}
    # Fields of `ModelConfig` and `TrainConfig` that the backend may refuse; all others must have an effect.
    refuses: ClassVar[frozenset[str]] = frozenset()
    # Every N and gridsize that the backend has.
    sizes: ClassVar[tuple[int, ...]] = SUPPORTED_N
    gridsizes: ClassVar[tuple[int, ...]] = (1, 2, 3)

    # What the tests are made of

    @classmethod
    def needs(cls, *capabilities: Capability) -> None:
        """Skip the test unless the backend has these capabilities."""
        if missing := [str(c) for c in capabilities if c not in cls.spec.capabilities]:
            pytest.skip(f"'{cls.spec.name}' lacks the capability {', '.join(missing)}")

    @classmethod
    def model_config(cls, **changes: Any) -> ModelConfig:
        """The tiny model with other settings."""
        values = {**_TINY_MODEL, **cls.model}
        if "gridsize" in changes:
            values.pop("group_size", None)
        return build(ModelConfig, {**values, **changes})

    @classmethod
    def train_config(cls, **changes: Any) -> TrainConfig:
        """The tiny training with other settings."""
        return build(TrainConfig, {**TINY_TRAIN, **cls.train, **changes})

    @classmethod
    def new(cls, model: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None) -> Reconstructor:
        """An untrained reconstructor."""
        made = build(cls.spec.options, {**cls.options, **(options or {})})
        return cls.spec.load_class()(cls.model_config(**(model or {})), made)

    @classmethod
    def load(cls, path: Any) -> Reconstructor:
        """A reconstructor from an archive."""
        return cls.spec.load_class().load(path, build(cls.spec.options, cls.options))

    @classmethod
    def fit(
        cls,
        data: ScanDataset,
        model: Mapping[str, Any] | None = None,
        train: Mapping[str, Any] | None = None,
        **rest: Any,
    ) -> Trained:
        """The tiny training of a new reconstructor, with other settings."""
        made = cls.new(model)
        return Trained(made, made.train(data, cls.train_config(**(train or {})), **rest))

    @classmethod
    def scan_config(cls, **changes: Any) -> SimulationConfig:
        """Settings of the simulation: 25 patterns of a textured object."""
        return SimulationConfig(**{"N": cls.model_config().N, "rows": 5, "cols": 5, "seed": 1, **changes})

    @classmethod
    def make_scan(cls, **changes: Any) -> ScanDataset:
        """A simulated scan."""
        return simulate_scan(cls.scan_config(**changes))

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parameters that a subclass sets."""
        for name, values in (("size", self.sizes), ("gridsize", self.gridsizes)):
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, values)

    @pytest.fixture(scope="class")
    @classmethod
    def pristine_scan(cls) -> ScanDataset:
        """The tiny scan; tests get copies."""
        return cls.make_scan()

    @pytest.fixture
    def scan(self, pristine_scan: ScanDataset) -> ScanDataset:
        """A copy of the tiny scan."""
        assert pristine_scan.object_guess is not None
        return replace(
            pristine_scan,
            patterns=np.array(pristine_scan.patterns),
            positions=pristine_scan.positions.copy(),
            probe=pristine_scan.probe.copy(),
            object_guess=pristine_scan.object_guess.copy(),
            scan_index=pristine_scan.scan_index.copy(),
            bad_pixels=pristine_scan.bad_pixels.copy(),
        )

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls) -> Trained:
        """A training that tests must not change."""
        return cls.fit(cls.make_scan())

    @pytest.fixture(scope="class")
    @classmethod
    def learned(cls) -> Trained:
        """A training that has learned the scan."""
        return cls.fit(cls.make_scan(), train=cls.learn)
