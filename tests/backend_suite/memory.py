"""Batches that do not fit into memory. Requirements: specs/16-hardening.md.

A backend's tests have a fixture ``out_of_memory``: the exception of its framework.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backend_suite.fits import Fit, New, settings_of
from ptychopinn.config import InferConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ResourceError
from ptychopinn.training.objective import LossTerms, Objective


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch, out_of_memory: Exception) -> Callable[[int], None]:
    """From now on the loss of more groups, or of more simulated patterns without groups, runs out of memory."""

    def limit(most: int) -> None:
        original = Objective.__call__

        def checked(self: Objective, model: Any, batch: Any) -> LossTerms:
            if batch["counts" if "counts" in batch else "simulated_counts"].shape[0] > most:
                raise out_of_memory
            return original(self, model, batch)

        monkeypatch.setattr(Objective, "__call__", checked)

    return limit


# Batches of 7 and of 3 groups, whose members are not all there; the last step has one batch.
BATCHES = {"n_groups": 17, "batch_size": 7, "nepochs": 2, "accumulate_grad_batches": 2, "validation_fraction": 0.3}
SETTINGS: dict[str, dict[str, Any]] = {
    "measured": {"train": {"mae_weight": 0.5, "realspace_weight": 0.1, "probe_trainable": True}},
    "supervised": {"model": {"model_type": "supervised"}},
    "anchor alone": {"model": {"object_big": False}},
    "mixed": {"train": {"simulate_objects": "mixed", "simulate_probes": "family"}},
    "simulated": {"train": {"simulate_objects": "only", "validation_fraction": 0.0}},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_batch_that_does_not_fit_is_cut(
    fit: Fit, off_centre: ScanDataset, cramped: Callable[[int], None], caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """[HARD-021] The same training, but for rounding."""
    settings = {**SETTINGS[kind], "train": {**BATCHES, **SETTINGS[kind].get("train", {})}}
    plain = fit(data=off_centre, **settings)
    cramped(8 if kind == "simulated" else 2)
    with caplog.at_level(logging.WARNING, logger="ptychopinn"):
        cut = fit(data=off_centre, **settings)
    assert "does not fit into memory and is computed in 4 parts" in caplog.text
    assert cut.result.history.keys() == plain.result.history.keys()
    for name in set(plain.result.history) - {"seconds"}:
        np.testing.assert_allclose(cut.result.history[name], plain.result.history[name], rtol=1e-4, err_msg=name)
    assert cut.result.patterns_seen == plain.result.patterns_seen
    learned = plain.arrays()
    for name, array in cut.arrays().items():
        np.testing.assert_allclose(array, learned[name], atol=2e-3, err_msg=name)


def test_where_not_even_one_group_fits(new: New, scan: ScanDataset, cramped: Callable[[int], None]) -> None:
    """[HARD-021]"""
    cramped(0)
    made = new()
    with pytest.raises(ResourceError, match="even one group"):
        made.train(scan, settings_of())
    assert len(list(made.infer(scan, InferConfig()).batches)) == 1  # the weights that it began with
