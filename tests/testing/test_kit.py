"""What the kit is made of. Requirements: specs/11-conformance.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from broken_backends import BROKEN

from ptychopinn.reconstructor import Capability, PatchBatch, Prediction
from ptychopinn.testing import BackendSuite
from ptychopinn.testing.backend import difference
from ptychopinn.testing.processes import backend_arguments, run_in_subprocess


class Small(BackendSuite):
    spec = BROKEN["healthy"].spec
    model: ClassVar[dict[str, int]] = {"group_size": 3}
    train: ClassVar[dict[str, int]] = {"nepochs": 1}


def modules_after(code: str) -> set[str]:
    command = f"import sys; sys.path[:] = {sys.path!r}; {code}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_nothing_else_needs_pytest() -> None:
    """[CONF-001]"""
    code = "import ptychopinn.cli, ptychopinn.workflows, ptychopinn.plugins; ptychopinn.plugins.discover()"
    assert "pytest" not in modules_after(code)
    found = modules_after("import ptychopinn.testing")
    assert "pytest" in found
    assert not found & {"torch", "tensorflow", "keras", "lightning_fabric", "jax", "matplotlib"}


def test_settings_go_over_the_tiny_ones() -> None:
    """[CONF-002]"""
    model = Small.model_config()
    assert (model.N, model.group_size) == (32, 3)
    grouped = Small.model_config(gridsize=3)
    assert (grouped.group_size, grouped.patterns_per_group) == (None, 9)
    config = Small.train_config(seed=4)
    assert (config.nepochs, config.seed, config.probe_refinement) == (1, 4, 0)


def test_the_capability_that_is_missing_is_named() -> None:
    """[CONF-003]"""
    Small.needs(Capability.PINN)
    with pytest.raises(pytest.skip.Exception, match="'healthy' lacks the capability simulated_objects"):
        Small.needs(Capability.PINN, Capability.SIMULATED_OBJECTS)


def test_patches_come_in_the_order_of_their_patterns() -> None:
    patches = np.arange(4, dtype=np.complex64).reshape(4, 1, 1) * np.ones((4, 2, 2), np.complex64)
    batches = [PatchBatch(np.array(i), patches[i]) for i in ([3, 0], [2])]
    found = Prediction(np.ones((1, 4, 4), np.complex64), 2, iter(batches)).collect(4)
    np.testing.assert_array_equal(found[:, 0, 0], [0, 0, 2, 3])


@pytest.mark.parametrize(("value", "expected"), [(1, 0.0), (1.5, 0.5), (np.nan, np.inf), (np.inf, np.inf)])
def test_what_is_not_finite_is_far_off(value: float, expected: float) -> None:
    one = np.ones((2, 2, 2), np.complex64)
    other = one.copy()
    other[1, 1, 1] = value
    assert difference(one, other) == expected


def test_a_job_that_fails_says_why(tmp_path: Path) -> None:
    arguments = {**backend_arguments(Small.spec, {}), "archive": str(tmp_path / "none"), "scan": {}, "patches": ""}
    with pytest.raises(
        AssertionError, match=r"(?s)'predict' failed in a fresh process.*The model archive .* is not there"
    ):
        run_in_subprocess("predict", arguments, tmp_path)
