"""Files of version 0.1 as of 2026-11-25 (tests/golden), what the core reads. Requirements: specs/08-archive.md.

What networks and trainings make of them: `backend_suite.golden`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptychopinn.bundle import ArchiveKind, read_bundle
from ptychopinn.checkpoints import CheckpointStore
from ptychopinn.config import RunSettings
from ptychopinn.config.build import build
from ptychopinn.config.files import read_config_file
from ptychopinn.config.train import CheckpointMode
from ptychopinn.data.fingerprint import fingerprint
from ptychopinn.data.io import read_scan

GOLDEN = Path(__file__).parent / "golden"
RUNS = ("torch-fast", "tf-fast", "torch-cnn")
EPOCHS = 40


@pytest.mark.parametrize("run", RUNS)
def test_a_configuration_of_before_means_the_same(run: str) -> None:
    """[ARC-016] Every value that it gives is today's, none is unknown."""
    path = GOLDEN / run / "config.yaml"
    settings = read_config_file(path)
    given: dict[str, Any] = {k: v for k, v in settings.items() if run != "tf-fast" or k != "execution"}
    made = build(RunSettings, given).model_dump(mode="json")
    for name in ("model", "train", "infer"):
        assert settings[name].items() <= made[name].items()


@pytest.mark.parametrize("run", RUNS)
def test_an_archive_of_before_opens(run: str) -> None:
    """[ARC-016]"""
    bundle = read_bundle(GOLDEN / run / "wts.h5.zip")
    assert bundle.manifest.writer.backend == run.partition("-")[0]
    assert bundle.manifest.model.N == 32
    assert bundle.manifest.training is not None
    assert bundle.manifest.training.epochs == EPOCHS
    assert bundle.weights["illumination/probe"].shape == (1, 32, 32)


@pytest.mark.parametrize("run", ["torch-fast", "tf-fast"])
def test_a_checkpoint_of_before_opens(run: str) -> None:
    """[ARC-016]"""
    store = CheckpointStore(GOLDEN / run / "checkpoints", top_k=1, mode=CheckpointMode.MIN)
    bundle = store.newest()
    assert bundle is not None
    assert bundle.manifest.kind is ArchiveKind.CHECKPOINT
    assert len(bundle.weights["history/loss"]) == EPOCHS


def test_a_scan_of_before_is_the_scan_that_the_run_knows() -> None:
    """[ARC-016] A training resumes only with the scan that it began with."""
    scan = read_scan(GOLDEN / "scan.npz")
    assert scan.object_guess is not None
    with np.load(GOLDEN / "predictions.npz") as predictions:
        assert {name.partition("/")[0] for name in predictions} == set(RUNS)
        assert all(predictions[f"{run}/object"].shape == scan.object_guess.shape for run in RUNS)
    for run in RUNS:
        known = json.loads((GOLDEN / run / "scan.json").read_text())["training"]
        assert (known["patterns"], known["fingerprint"]) == (len(scan), fingerprint(scan))
