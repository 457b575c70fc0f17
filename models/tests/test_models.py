"""The archives of this distribution. Requirements: specs/22-reconstruct.md."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from ptychopinn.bundle import read_bundle
from ptychopinn.config import InferConfig, SimulationConfig
from ptychopinn.config.infer import ProbeSource
from ptychopinn.plugins import discover
from ptychopinn.reconstruction import reconstruct
from ptychopinn.simulate import TRAINING_KINDS, simulate_scan
from ptychopinn.workflows import load_reconstructor

MODELS = discover().models
BACKENDS = [name for name, package in (("torch", "torch"), ("tf", "tensorflow")) if importlib.util.find_spec(package)]


def test_the_models_are_found() -> None:
    """[MODEL-001] [MODEL-004]"""
    assert {"family-64", "family-128"} <= MODELS.keys()
    assert sum(spec.path.stat().st_size for spec in MODELS.values()) < 5e6


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_record_says_what_a_model_was_trained_on(name: str) -> None:
    """[MODEL-003] [MODEL-004] Simulated objects under simulated probes alone; others were examined."""
    manifest = read_bundle(MODELS[name].path).manifest
    assert manifest.training is not None
    config, record = manifest.training.config, manifest.extra["pretraining"]
    assert (config["simulate_objects"], config["simulate_probes"]) == ("only", "family")
    assert record["measured_scans"] == []
    for examined in record["examined"]:
        assert examined["seed"] != config["seed"]
        assert examined.get("object_kind", "textured") not in TRAINING_KINDS


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_model_starts_passes_better_than_nothing(name: str, backend: str) -> None:
    """[MODEL-004] In every backend, on a sparse scan of a kind that it has not seen."""
    spec = MODELS[name]
    scan = simulate_scan(SimulationConfig(N=spec.N, rows=6, cols=6, step_px=spec.N / 5, seed=77))
    found = reconstruct(
        load_reconstructor(spec.path, backend=backend), scan, InferConfig(probe_source=ProbeSource.SCAN, refine=2)
    )
    assert found.refined is not None
    assert not found.refined.from_flat
    assert np.isfinite(found.object).all()
    assert found.residual < 0.7 * found.refined.residual_before


def test_the_archives_lie_in_the_package() -> None:
    assert {spec.path.parent.name for spec in MODELS.values()} == {"ptychopinn_models"}
    assert all(isinstance(spec.path, Path) for spec in MODELS.values())
