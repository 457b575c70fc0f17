"""What the suite of all backends needs to know of this one."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("backend_suite")

from backend_suite.fits import Fits  # noqa: E402
from backend_suite.fixtures import *  # noqa: E402, F403
from backend_suite.ops import Ops  # noqa: E402
from torch_fits import FITS, TorchOps  # noqa: E402


@pytest.fixture(scope="session")
def fits() -> Fits:
    """Tiny trainings of this backend."""
    return FITS


@pytest.fixture(scope="session")
def ops() -> Ops:
    """Its tensors."""
    return TorchOps()
