"""Tests that every setting has an effect or is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ConfigError
from ptychopinn.testing.backend import OFFSET_PX, BackendSuite, Trained, difference

# A field, with the other fields that it needs to have an effect.
MODEL_CHANGES: Mapping[str, Mapping[str, Any]] = {
    "model_type": {"model_type": "supervised"},
    "gridsize": {"gridsize": 3},
    "group_size": {"group_size": 6},
    "n_filters_scale": {"n_filters_scale": 0.37},
    "iterations": {"iterations": 4},
    "amp_activation": {"amp_activation": "exp"},
    "probe_mask": {"probe_mask": True},
    "architecture": {"architecture": "cnn", "iterations": None},
    "pad_object": {"pad_object": False},
    "probe_big": {"architecture": "cnn", "iterations": None, "probe_big": True},
    "object_big": {"object_big": False},
    "gaussian_smoothing_sigma": {"gaussian_smoothing_sigma": 1.3},
}
TRAIN_CHANGES: Mapping[str, Mapping[str, Any]] = {
    "nepochs": {"nepochs": 3},
    "batch_size": {"batch_size": 1},
    "seed": {"seed": 7},
    "n_groups": {"n_groups": 5},
    "neighbor_count": {"neighbor_count": 20},
    "n_subsample": {"n_subsample": 14},
    "sequential_sampling": {"sequential_sampling": True},
    "validation_fraction": {"validation_fraction": 0.3},
    "nll_weight": {"nll_weight": 0.1, "mae_weight": 1.0},
    "mae_weight": {"mae_weight": 1.0},
    "realspace_weight": {"realspace_weight": 1.0},
    "realspace_mae_weight": {"realspace_mae_weight": 1.0},
    "probe_trainable": {"probe_trainable": True},
    "intensity_scale_trainable": {"intensity_scale_trainable": True},
    "detector_offset": {"detector_offset": "none"},
    "simulate_objects": {"simulate_objects": "mixed"},
    "simulate_probes": {"simulate_objects": "mixed", "simulate_probes": "family"},
    "learning_rate": {"learning_rate": 3e-3},
    "scheduler": {"scheduler": "constant"},
    "accumulate_grad_batches": {"accumulate_grad_batches": 2},
    "gradient_clip": {"gradient_clip": 1e-3},
    "gradient_clip_algorithm": {"gradient_clip": 1e-3, "gradient_clip_algorithm": "value"},
    "weight_averaging": {"weight_averaging": 0.0},
}
# Their effects show only in the length of a training, in its files, with a wrong probe, or with wider patches.
TESTED_ELSEWHERE = frozenset(
    {
        *("N", "fine_iterations"),
        *("max_time", "subsample_seed", "probe_refinement", "start_probe", "early_stopping_patience"),
        *("checkpoint_every", "checkpoint_top_k", "checkpoint_monitor", "checkpoint_mode"),
    }
)


class SettingsConformance(BackendSuite):
    """Tests that no setting is ignored."""

    @pytest.fixture(scope="class")
    @classmethod
    def offset_scan(cls) -> ScanDataset:
        """The tiny scan with a detector offset and a probe that reaches the corners."""
        scan = cls.make_scan(detector_offset_px=OFFSET_PX)
        return replace(scan, probe=scan.probe + np.float32(0.05) * np.abs(scan.probe).max())

    @pytest.fixture(scope="class")
    @classmethod
    def unchanged(cls, offset_scan: ScanDataset) -> Trained:
        """The training with which all others are compared."""
        return cls.fit(offset_scan)

    @pytest.mark.parametrize("field", list(MODEL_CHANGES))
    def test_a_model_setting_acts_or_is_refused(self, offset_scan: ScanDataset, unchanged: Trained, field: str) -> None:
        """[CONF-030] [TRAIN-001]"""
        self._check(offset_scan, unchanged, field, "model", MODEL_CHANGES[field])

    @pytest.mark.parametrize("field", list(TRAIN_CHANGES))
    def test_a_training_setting_acts_or_is_refused(
        self, offset_scan: ScanDataset, unchanged: Trained, field: str
    ) -> None:
        """[CONF-030] [TRAIN-001]"""
        self._check(offset_scan, unchanged, field, "train", TRAIN_CHANGES[field])

    def _check(
        self, scan: ScanDataset, unchanged: Trained, field: str, section: str, changes: Mapping[str, Any]
    ) -> None:
        """Train with all changes, and without the field."""
        try:
            found = self.fit(scan, **{section: changes})
        except ConfigError:
            assert field in self.refuses, f"{field} was refused, and is none of the settings that may be"
            return
        if others := {name: value for name, value in changes.items() if name != field}:
            unchanged = self.fit(scan, **{section: others})
        same_loss = found.result.history["loss"] == unchanged.result.history["loss"]
        same_names = found.result.history.keys() == unchanged.result.history.keys()
        same_patches = difference(found.patches(scan), unchanged.patches(scan)) == 0
        assert not (same_loss and same_names and same_patches), f"{field} was accepted and changed nothing"
