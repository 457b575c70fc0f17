"""Flags generated from the configuration models: a field is declared in one place and appears here by itself."""

from __future__ import annotations

import argparse
import typing
from collections.abc import Callable, Collection
from enum import Enum
from typing import Any

from pydantic import BaseModel

from ptychopinn.cli._parser import Parser
from ptychopinn.config.presets import PRESETS, Preset
from ptychopinn.config.settings import Setting, settings_of

_UNITS = {"s": "seconds", "px": "pixels"}  # where the unit alone would not be understood


def add_flags(
    parser: Parser, section: str, cls: type[BaseModel], *, training: bool = True, without: Collection[str] = ()
) -> None:
    """Add a flag for each field of a configuration model, in the groups that the model names.

    What is not given stays out of the namespace; what is given goes to ``SECTION.FIELD`` as text (or bool, None, list),
    for the model to convert and check. Arguments as in `ptychopinn.config.settings.settings_of`.
    """
    for setting in settings_of(section, cls, training=training, without=without):
        group = parser.group(setting.group)
        flag = flag_of(setting.name, section)
        common: dict[str, Any] = {
            "dest": f"{section}.{setting.name}",
            "default": argparse.SUPPRESS,
            "help": describe(setting),
        }
        if setting.is_switch:
            action = group.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        else:
            action = group.add_argument(flag, type=_reader(setting), metavar=_metavar(setting), **common)
        if setting.is_basic:
            parser.basic.append(action)
        if alone := setting.marks.get("bare_value"):
            parser.set_bare_value(flag, alone, setting.choices)


def add_preset(parser: Parser, sections: Collection[str] = ("train", "infer")) -> None:
    """``--preset``, and in the long help the list of presets with the values that act on these sections."""
    parser.add_argument(
        "--preset", metavar="NAME", help=f"Values for several settings: {', '.join(Preset)} (default: none)."
    )
    parser.list_in_long_help("presets", {name: describe_preset(name, sections) for name in PRESETS})


def describe_preset(preset: Preset, sections: Collection[str] = ("train", "infer")) -> str:
    """When to use a preset, and its values in these sections as flags."""
    values = PRESETS[preset].sections
    flags = [_as_flag(name, value) for section in sections for name, value in values[section].items()]
    return f"{PRESETS[preset].summary} {' '.join(flags)}"


def _as_flag(name: str, value: object) -> str:
    flag = flag_of(name)
    return flag if value is True else f"{flag} {value:g}" if isinstance(value, float) else f"{flag} {value}"


def flag_of(name: str, section: str = "") -> str:
    """The flag of a field; those of solvers have a prefix, since others have a batch size and a seed too."""
    return "--" + ("solver-" if section == "solver" else "") + name.replace("_", "-")


def describe(setting: Setting) -> str:
    """A setting's description, default and bounds, as the help shows them."""
    facts = setting.facts
    if alone := setting.marks.get("bare_value"):
        facts.append(f"the flag alone: {alone}")
    return f"{setting.description.rstrip('.')} ({'; '.join(facts)}).".replace("%", "%%")


def _reader(setting: Setting) -> Callable[[str], object]:
    def read(text: str) -> object:
        if setting.optional and text.lower() == "none":
            return None
        return [part.strip() for part in text.split(",")] if setting.is_sequence else text

    return read


def _metavar(setting: Setting) -> str:
    return _UNITS.get(setting.unit, setting.unit).upper() or _kind_name(setting.kind)


def _kind_name(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "{" + ",".join(str(member.value) for member in kind) + "}"
    if typing.get_origin(kind) in (tuple, list):
        return ",".join(_kind_name(member) for member in typing.get_args(kind) if member is not Ellipsis)
    return {int: "INT", float: "FLOAT", bool: "{true,false}"}.get(kind, "TEXT")
