"""Training: what is PyTorch's own; the rest is `backend_suite.training`. Requirements: specs/10-training.md."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from backend_suite.fits import Fit, New, Trained, differs, patches_of, settings_of
from backend_suite.training import *  # noqa: F403

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import TrainingError
from ptychopinn_torch import training
from ptychopinn_torch.training import deterministic_algorithms


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
    original = training.TrainingModule.training_step

    def spy(self: Any, *args: Any) -> Any:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return original(self, *args)

    monkeypatch.setattr(training.TrainingModule, "training_step", spy)
    fit(options={"deterministic": wanted})
    assert set(seen) == {wanted}
    assert not torch.are_deterministic_algorithms_enabled()


def test_what_was_set_before_is_put_back() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with deterministic_algorithms(False):
            assert not torch.are_deterministic_algorithms_enabled()
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_weights_that_are_not_finite_are_never_the_model(
    new: New, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[TRAIN-006] A gradient can break before the loss does: then the average is broken too; an older one is kept."""
    original = training.TrainingModule.optimizer_step

    def break_weights(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if self.plan.clock.step == 6:
            for module in (self.model, self.averaged.module):
                with torch.no_grad():
                    module.network.head[0].bias.fill_(math.nan)

    monkeypatch.setattr(training.TrainingModule, "optimizer_step", break_weights)
    made = new()
    with pytest.raises(TrainingError):
        made.train(scan, settings_of({"nepochs": 3}))
    assert np.isfinite(patches_of(made, scan)).all()
