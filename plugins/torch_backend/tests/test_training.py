"""Training: what is PyTorch's own; the rest is `backend_suite.training`. Requirements: specs/10-training.md."""

from __future__ import annotations

import math
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backend_suite.fits import Fit, Fits, New, Trained, differs, patches_of, settings_of
from backend_suite.training import *  # noqa: F403

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import write_scan
from ptychopinn.errors import TrainingError
from ptychopinn_torch import training


def test_nobody_elses_random_numbers_are_used_or_moved(fit: Fit, base: Trained) -> None:
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    found = fit()
    assert not differs(found, base)
    torch.testing.assert_close(torch.rand(3), expected)


@pytest.mark.parametrize("wanted", [True, False])
def test_deterministic_algorithms_are_on_while_it_trains(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    seen: list[bool] = []
    original = training.TrainingLoop.train_on

    def spy(self: Any, *args: Any, **more: Any) -> Any:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return original(self, *args, **more)

    monkeypatch.setattr(training.TrainingLoop, "train_on", spy)
    fit(options={"deterministic": wanted})
    assert set(seen) == {wanted}
    assert not torch.are_deterministic_algorithms_enabled()


def test_one_process_of_a_job_with_several_tasks(fit: Fit, base: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's scheduler does not say how this training computes."""
    for name, value in {"SLURM_JOB_NAME": "scan", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    assert not differs(fit(), base)


def test_sigterm_ends_it_as_it_ends_everything(fits: Fits, scan: ScanDataset, tmp_path: Path) -> None:
    """Not with 0, which would say that it is done."""
    write_scan(tmp_path / "scan.npz", scan)
    code = """
import os, signal, sys
from ptychopinn.data.io import read_scan
from ptychopinn.monitor import Monitor
class Hasty(Monitor):
    def report(self, *args, **more):
        if args[0] == "train" and args[1] == 2:
            os.kill(os.getpid(), signal.SIGTERM)
FITS.fit_to(read_scan(sys.argv[1]), train={"nepochs": 1000}, monitor=Hasty())
"""
    ended = subprocess.run(fits.command(code, tmp_path / "scan.npz"), check=False, timeout=120)
    assert ended.returncode in (143, -signal.SIGTERM)


def test_weights_that_are_not_finite_are_never_the_model(
    new: New, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[TRAIN-006] A gradient can break before the loss does: then the average is broken too; an older one is kept."""
    original = training.TrainingLoop._step

    def break_weights(self: Any, rate: float) -> None:
        original(self, rate)
        if self._plan.clock.step == 6:
            for model in (self._model, self._average):
                with torch.no_grad():
                    model.network.head[0].bias.fill_(math.nan)

    monkeypatch.setattr(training.TrainingLoop, "_step", break_weights)
    made = new()
    with pytest.raises(TrainingError):
        made.train(scan, settings_of({"nepochs": 3}))
    assert np.isfinite(patches_of(made, scan)).all()


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("interval", [0.0, 1e9])
def test_a_batch_that_is_not_finite_makes_no_step(
    new: New, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch, what: str, interval: float
) -> None:
    """[TRAIN-006] [TRAIN-014] Nor is it noticed before the next reading, which names it."""
    weights: list[torch.Tensor] = []
    original = training.TrainingLoop._backward

    def broken(self: training.TrainingLoop, part: Any) -> Any:
        terms = original(self, part)
        weights.append(torch.cat([p.detach().reshape(-1) for p in self._model.parameters()]))
        weights[-1] = torch.cat([weights[-1], self._model.illumination.offset_px])
        if len(weights) == 3 and what == "loss":
            return terms.map(lambda value: value * math.nan)
        if len(weights) == 3:
            self._free[0].grad = torch.full_like(self._free[0], math.inf)
        return terms

    def due(self: training.TrainingLoop) -> bool:
        return interval == 0

    monkeypatch.setattr(training.TrainingLoop, "_backward", broken)
    monkeypatch.setattr(training.TrainingLoop, "_reading_is_due", due)
    made = new()
    message = "The loss is nan at step 2" if what == "loss" else "The gradient of the loss is not finite at step 2"
    with pytest.raises(TrainingError, match=message):
        made.train(scan, settings_of({"nepochs": 3, "detector_offset": "none"}))
    assert len(weights) == (3 if interval == 0 else 4)  # there are four batches an epoch
    assert not torch.equal(weights[1], weights[2])
    if interval:
        assert torch.equal(weights[2], weights[3])
    assert np.isfinite(patches_of(made, scan)).all()
