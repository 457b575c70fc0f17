"""What a field says of itself, for flags and panes: specs/09-command-line.md."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from ptychopinn.config import Config, ExecutionOptions, InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.config.comparison import ComparisonConfig
from ptychopinn.config.reading import ReadOptions
from ptychopinn.config.settings import marks, setting_of, settings_of
from ptychopinn.config.solver import SolverOptions
from ptychopinn.config.study import StudyConfig


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Paint(Config):
    colour: Colour | str = Field(Colour.RED, description="Of the paint.")
    coats: int | None = Field(
        None, ge=1, lt=9, title="Coats of paint", json_schema_extra=marks(training_only=True, unset="two", basic=True)
    )
    finish: Literal["matt", "gloss"] = "matt"
    sizes: tuple[int, ...] = (1, 2)


def test_kind_default_bounds_and_choices() -> None:
    """[CLI-001]"""
    colour, coats, finish, sizes = settings_of("paint", Paint)
    assert (colour.section, colour.name, colour.description) == ("paint", "colour", "Of the paint.")
    assert (colour.kind, colour.choices, colour.takes_text, colour.optional) == (Colour, ("red", "blue"), True, False)
    assert (coats.kind, coats.optional, coats.default, coats.bounds) == (int, True, None, {"ge": 1, "lt": 9})
    assert (finish.choices, finish.default, finish.takes_text) == (("matt", "gloss"), "matt", False)
    assert (sizes.is_sequence, coats.is_sequence) == (True, False)


def test_a_field_declares_how_it_is_shown() -> None:
    """[CFG-013] Label, unit, what None means, and whether it is basic; a field that says nothing has its name."""
    colour, coats, _, sizes = settings_of("paint", Paint)
    assert (coats.label, coats.default_text, coats.is_basic) == ("Coats of paint", "two", True)
    assert coats.facts == ["default: two", "at least 1", "below 9"]
    assert (colour.label, colour.group, colour.default_text, colour.is_basic) == ("Colour", "paint", "red", False)
    assert (sizes.facts, sizes.unit) == (["default: 1,2"], "")
    assert setting_of("train", TrainConfig, "max_time").unit == "s"


@pytest.mark.parametrize(
    "cls",
    [
        *(ModelConfig, TrainConfig, InferConfig, ExecutionOptions, ReadOptions),
        *(SimulationConfig, ComparisonConfig, StudyConfig, SolverOptions),
    ],
)
def test_every_setting_has_a_label_a_group_and_a_default_in_words(cls: type[BaseModel]) -> None:
    """[CFG-013] A label is not the name; what may be left out says what happens then."""
    for setting in settings_of("section", cls):
        assert cls.model_fields[setting.name].title, setting.name
        assert setting.group not in ("", "section"), setting.name
        assert setting.default_text not in ("", "None"), setting.name
        if setting.default is None and setting.name != "gridsize":
            assert setting.marks["unset"], setting.name
        assert setting.description.rstrip(".") not in (setting.label, ""), setting.name


def test_a_setting_that_needs_another_is_refused_alone() -> None:
    """[CFG-014] Unless it has its default."""

    class Fountain(Config):
        pump: int = 0
        lamps: bool = Field(False, json_schema_extra=marks(needs="pump"))
        height: float | None = Field(None, json_schema_extra=marks(needs="pump"))

    assert Fountain(pump=2, lamps=True, height=1.0).lamps
    assert Fountain(lamps=False).pump == 0
    with pytest.raises(ValidationError, match="lamps and height has no effect without pump; set both"):
        Fountain(lamps=True, height=1.0)


def test_what_acts_on_training_alone_can_be_left_out() -> None:
    """[CLI-003]"""
    names = [setting.name for setting in settings_of("paint", Paint, training=False, without=("sizes",))]
    assert names == ["colour", "finish"]


def test_settings_of_a_training_are_in_groups() -> None:
    """[CFG-001] Each is declared in one small model; a backend that overrides an option leaves it in its group."""
    groups = {setting.name: setting.group for setting in settings_of("train", TrainConfig)}
    assert (groups["nepochs"], groups["nll_weight"]) == ("training: length", "training: loss")
    assert all(groups.values())

    class Own(ExecutionOptions):
        num_workers: int = 1
        springs: int = 3

    assert {setting.group for setting in settings_of("execution", Own)} == {"execution"}
