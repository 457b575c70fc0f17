"""What a field says of itself, for flags and panes: specs/09-command-line.md."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from ptychopinn.config import Config, ExecutionOptions, TrainConfig
from ptychopinn.config.settings import settings_of


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Paint(Config):
    colour: Colour | str = Field(Colour.RED, description="Of the paint.")
    coats: int | None = Field(None, ge=1, lt=9, json_schema_extra={"training_only": True})
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

    assert {setting.group for setting in settings_of("execution", Own)} == {""}
