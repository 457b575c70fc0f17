"""Settings that nothing would look at: specs/09-command-line.md."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ptychopinn.config import ModelConfig, TrainConfig


def idle(model: dict[str, Any], train: dict[str, Any], *, validates: bool = False) -> None:
    TrainConfig(**train).check_all_settings_used(ModelConfig(**model), validates=validates)


ONLY = {"simulate_objects": "only"}
SUPERVISED = {"model_type": "supervised"}


@pytest.mark.parametrize(
    ("model", "train"),
    [
        ({}, {}),
        ({"gaussian_smoothing_sigma": 1}, {"probe_trainable": True, "intensity_scale_trainable": True}),
        ({}, {"nll_weight": 0, "mae_weight": 1, "probe_trainable": True}),
        (SUPERVISED, {}),
        (SUPERVISED, {"nll_weight": 1, "probe_trainable": True}),
        ({}, ONLY),
        (SUPERVISED, ONLY),
        ({"gaussian_smoothing_sigma": 1}, {"simulate_objects": "mixed", "mae_weight": 1, "probe_trainable": True}),
    ],
)
def test_what_acts_is_accepted(model: dict[str, Any], train: dict[str, Any]) -> None:
    """[CFG-010] It is not refused, as others are below: there is nothing else to see."""
    idle(model, train)


@pytest.mark.parametrize("field", ["probe_trainable", "intensity_scale_trainable"])
@pytest.mark.parametrize("rest", [({}, ONLY), (SUPERVISED, {})])
def test_physics_that_no_loss_reaches_is_refused(field: str, rest: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """[CFG-010] also with a validation, which moves nothing."""
    for validates in (False, True):
        with pytest.raises(ValueError, match=rf"^{field} has no effect: "):
            idle(rest[0], {**rest[1], field: True}, validates=validates)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nll_weight", 1),
        ("mae_weight", 1),
        ("realspace_weight", 1),
        ("realspace_mae_weight", 1),
        ("neighbor_count", 9),
    ],
)
def test_terms_of_measured_patterns_are_refused_without_any(name: str, value: float) -> None:
    """[CFG-010] unless a validation looks at them."""
    with pytest.raises(
        ValueError, match=f"^{name} has no effect: with simulate_objects only, no measured pattern is trained on"
    ):
        idle({}, {**ONLY, name: value})
    idle({}, {**ONLY, name: value}, validates=True)


def test_a_blur_of_waves_that_nobody_predicts_is_refused() -> None:
    """[CFG-010]"""
    blurred = {"gaussian_smoothing_sigma": 1}
    with pytest.raises(ValueError, match="gaussian_smoothing_sigma has no effect: nll_weight and mae_weight are 0"):
        idle({**SUPERVISED, **blurred}, {})
    with pytest.raises(ValueError, match="gaussian_smoothing_sigma has no effect: with simulate_objects only"):
        idle(blurred, ONLY)
    idle(blurred, ONLY, validates=True)


@pytest.mark.parametrize(
    ("model", "train", "reason"),
    [
        ({}, ONLY, "simulate_objects only"),
        (SUPERVISED, ONLY, "simulate_objects only"),
        (SUPERVISED, {}, "nll_weight and mae_weight are 0"),
        (SUPERVISED, {"nll_weight": 1}, "known patches"),
    ],
)
def test_an_offset_that_nothing_moves_is_refused(model: dict[str, Any], train: dict[str, Any], reason: str) -> None:
    """[CFG-010] when it was asked for; the default, and an estimate, are accepted."""
    for validates in (False, True):
        with pytest.raises(ValueError, match=f"^detector_offset train has no effect: .*{reason}"):
            idle(model, {**train, "detector_offset": "train"}, validates=validates)
        for accepted in (None, "estimate", "none"):
            idle(model, {**train, "detector_offset": accepted}, validates=validates)
    idle({}, {"detector_offset": "train", "simulate_objects": "mixed"})


def test_all_are_named_at_once() -> None:
    """[CFG-010]"""
    with pytest.raises(ValueError, match=r"^probe_trainable, mae_weight has no effect"):
        idle({}, {**ONLY, "probe_trainable": True, "mae_weight": 2})


def test_a_way_of_clipping_needs_a_bound() -> None:
    """[CFG-010]"""
    with pytest.raises(ValidationError, match="gradient_clip_algorithm value has no effect without gradient_clip"):
        TrainConfig(gradient_clip=None, gradient_clip_algorithm="value")
    assert TrainConfig(gradient_clip=None).gradient_clip is None
