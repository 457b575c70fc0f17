"""The kit on broken backends. Not collected with the other tests: `test_broken` runs it and reads what failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import numpy as np
from broken_backends import BROKEN, Broken
from broken_backends.settings import IsTooNarrow

from ptychopinn import forward
from ptychopinn.plugins import GROUP
from ptychopinn.testing import (
    ArchiveConformance,
    BackendSuite,
    CrossBackendConformance,
    ForwardConformance,
    PredictionConformance,
    RegistrationConformance,
    SettingsConformance,
    TrainingConformance,
)
from ptychopinn.testing.processes import run_in_subprocess, run_in_this_process
from ptychopinn.typing import ComplexArray, FloatArray

ENTRY = EntryPoint("broken", "broken_backends", GROUP)


class Least(BackendSuite):
    """The least of each parameter, in one process."""

    model: ClassVar[Mapping[str, Any]] = {"iterations": 1, "group_size": 3}
    train: ClassVar[Mapping[str, Any]] = {"n_groups": 4, "batch_size": 2}
    learn: ClassVar[Mapping[str, Any]] = {"nepochs": 4}
    sizes = (32,)
    gridsizes = (2,)
    elsewhere = staticmethod(run_in_this_process)

    @classmethod
    def entry_points(cls) -> Iterable[EntryPoint]:
        return [ENTRY]


class Quick(Least, RegistrationConformance, TrainingConformance, PredictionConformance, ArchiveConformance):
    """The kit without its many settings."""


class Settings(Least, SettingsConformance):
    """The settings alone."""

    refuses: ClassVar[frozenset[str]] = frozenset(
        {
            *("n_filters_scale", "amp_activation", "architecture", "pad_object", "probe_big", "object_big"),
            *("gaussian_smoothing_sigma", "realspace_weight", "probe_trainable", "intensity_scale_trainable"),
            *("simulate_objects", "simulate_probes", "learning_rate", "scheduler", "accumulate_grad_batches"),
            *("gradient_clip", "gradient_clip_algorithm"),
        }
    )


def suite(one: Broken) -> type[Least]:
    attributes: dict[str, Any] = {"spec": one.spec}
    if one.fresh:
        attributes["elsewhere"] = staticmethod(run_in_subprocess)
    if one.cls is IsTooNarrow:
        attributes["sizes"] = (32, 64)
    settings = any("setting" in name for name in one.fails)
    return type(f"Test{one.cls.__name__}", (Settings if settings else Quick,), attributes)


globals().update({f"Test{one.cls.__name__}": suite(one) for one in BROKEN.values()})


class TestHealthySettings(Settings):
    """Nothing is wrong with them."""

    spec = BROKEN["healthy"].spec


class TestRegistersAnother(Quick):
    """What is registered is not what the suite was given."""

    spec = replace(BROKEN["healthy"].spec, summary="Another")


class TestImportsItsFramework(Quick):
    """Listing it loads all of it."""

    spec = replace(BROKEN["healthy"].spec, requires=("wave",))
    elsewhere = staticmethod(run_in_subprocess)

    @classmethod
    def entry_points(cls) -> Iterable[EntryPoint]:
        return [EntryPoint("broken", "broken_plugin", GROUP)]


class TestForwardHealthy(ForwardConformance):
    def expected_counts(self, obj: ComplexArray, probe: ComplexArray, positions: FloatArray) -> FloatArray:
        return forward.expected_counts(obj, probe, positions)


class TestForwardCorner(ForwardConformance):
    def expected_counts(self, obj: ComplexArray, probe: ComplexArray, positions: FloatArray) -> FloatArray:
        return np.fft.ifftshift(forward.expected_counts(obj, probe, positions), axes=(1, 2))


class TestForwardHalfPixel(ForwardConformance):
    def expected_counts(self, obj: ComplexArray, probe: ComplexArray, positions: FloatArray) -> FloatArray:
        return forward.expected_counts(obj, probe, positions - 0.5)


class TestForwardSwapped(ForwardConformance):
    def expected_counts(self, obj: ComplexArray, probe: ComplexArray, positions: FloatArray) -> FloatArray:
        return forward.expected_counts(obj, probe, positions[:, ::-1])


class Cross(CrossBackendConformance):
    """Two backends in this process."""

    elsewhere = staticmethod(run_in_this_process)

    @classmethod
    def entry_points(cls) -> Iterable[EntryPoint]:
        return [ENTRY]


class TestCrossHealthy(Cross):
    pair = ("healthy", "is-not-seeded")


class TestCrossOtherLayout(Cross):
    pair = ("healthy", "reads-another-layout")


class TestCrossMissing(Cross):
    pair = ("healthy", "nobody")
