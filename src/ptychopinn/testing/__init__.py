"""The conformance kit: pytest classes with which authors check their backends.

A backend's tests subclass `ReconstructorConformance`, and supply a spec and tiny settings::

    class TestMine(ReconstructorConformance):
        spec = MY_SPEC
        model = {"n_filters_scale": 0.1}
        train = {"learning_rate": 0.02}
        options = {"accelerator": "cpu"}

`ForwardConformance` compares a backend's forward model with `ptychopinn.forward`, `CrossBackendConformance` its
archives with those of another backend. `ReaderConformance` checks a reader of a
file format. Tests are skipped only for missing capabilities of the spec. Only this package
needs pytest.
"""

import pkgutil

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))

from ptychopinn.testing.archives import ArchiveConformance  # noqa: E402 - asserts are rewritten on import
from ptychopinn.testing.backend import BackendSuite, Tolerances, Trained  # noqa: E402
from ptychopinn.testing.cross import CrossBackendConformance  # noqa: E402
from ptychopinn.testing.forward import ForwardConformance  # noqa: E402
from ptychopinn.testing.prediction import PredictionConformance  # noqa: E402
from ptychopinn.testing.readers import ReaderConformance  # noqa: E402
from ptychopinn.testing.registration import RegistrationConformance  # noqa: E402
from ptychopinn.testing.settings import SettingsConformance  # noqa: E402
from ptychopinn.testing.training import TrainingConformance  # noqa: E402

__all__ = [
    "ArchiveConformance",
    "BackendSuite",
    "CrossBackendConformance",
    "ForwardConformance",
    "PredictionConformance",
    "ReaderConformance",
    "ReconstructorConformance",
    "RegistrationConformance",
    "SettingsConformance",
    "Tolerances",
    "Trained",
    "TrainingConformance",
]


class ReconstructorConformance(
    RegistrationConformance,
    TrainingConformance,
    SettingsConformance,
    PredictionConformance,
    ArchiveConformance,
):
    """All requirements of a reconstructor; `BackendSuite` says what a subclass supplies."""
