"""Presets: specs/09-command-line.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ptychopinn.config import InferConfig, ModelConfig, RunSettings, TrainConfig
from ptychopinn.config.build import build
from ptychopinn.config.files import read_config_file, write_config_file
from ptychopinn.config.infer import StreamConfig
from ptychopinn.config.presets import PRESETS, Preset
from ptychopinn.config.run import AllSettings
from ptychopinn.workflows import run_settings


@pytest.mark.parametrize("name", list(Preset))
@pytest.mark.parametrize("model_type", ["pinn", "supervised"])
def test_every_preset_is_accepted_and_acts(name: Preset, model_type: str) -> None:
    """[CFG-015] Each of its values differs from the default, at least of streams; none of it is idle in a training."""
    settings = RunSettings(preset=name, model={"model_type": model_type})
    plain: dict[str, tuple[Any, ...]] = {"train": (TrainConfig(),), "infer": (InferConfig(), StreamConfig())}
    for section, values in PRESETS[name].sections.items():
        for field, value in values.items():
            assert getattr(getattr(settings, section), field) == value
            assert any(getattr(one, field) != value for one in plain[section])
    assert PRESETS[name].infer  # so that it acts on an inference too
    settings.train.check_all_settings_used(ModelConfig(model_type=model_type), validates=False)


def test_what_is_given_goes_before_the_preset() -> None:
    """[CFG-015] As plain values, and as models in which it can be told what was given."""
    given: list[dict[str, Any]] = [{"max_time": 60}, {"max_time": "60"}]
    for values in (*given, TrainConfig(max_time=60)):
        settings = RunSettings(preset="sparse", train=values, infer={})
        assert (settings.train.max_time, settings.train.simulate_objects) == (60, "mixed")
        assert settings.infer.refine == 10
    assert RunSettings(preset="quick-look", train={"max_time": None}).train.max_time is None


@pytest.mark.parametrize("off", [0, "0"])
def test_a_preset_leaves_out_what_would_have_no_effect(off: object) -> None:
    """[CFG-015] Else one would have to switch off settings that one never gave."""
    settings = RunSettings(preset="dim", infer={"refine": off})
    assert settings.infer == InferConfig(refine=0)
    settings = RunSettings(preset="many-scans", train={"simulate_objects": "off"})
    assert settings.train.simulate_probes == "scan"


def test_the_file_of_a_run_has_the_presets_name_and_values(tmp_path: Path) -> None:
    """[CFG-015] Read again it means the same, also where a later version has other values."""
    settings = run_settings(preset="best-picture", infer={"refine": 3})
    write_config_file(tmp_path / "config.yaml", settings)
    values = read_config_file(tmp_path / "config.yaml")
    assert (values["preset"], values["infer"]["refine"], values["infer"]["refine_probe"]) == ("best-picture", 3, True)
    assert build(RunSettings, values) == settings
    assert build(RunSettings, {**values, "preset": "quick-look"}).infer == settings.infer


def test_sections_that_are_no_mappings_are_refused_as_ever() -> None:
    """[CFG-015]"""
    with pytest.raises(ValueError, match="train"):
        RunSettings.model_validate({"preset": "dim", "train": 3})


def test_comparisons_have_presets_too() -> None:
    """[CFG-015] Handed on with the settings of a run."""
    settings: AllSettings[Any, Any] = AllSettings(preset="dim")
    run = settings.run_settings()
    assert (run.preset, run.infer.refine, run.given()["train"]) == ("dim", 3, {"simulate_objects": "mixed"})
