"""Flags generated from the configuration models: a field is declared in one place and appears here by itself."""

from __future__ import annotations

import argparse
import typing
from collections.abc import Callable, Collection
from enum import Enum
from typing import Any

from pydantic import BaseModel

from ptychopinn.cli._parser import Parser
from ptychopinn.config.settings import BOUNDS, Setting, settings_of


def add_flags(
    parser: Parser,
    section: str,
    cls: type[BaseModel],
    title: str,
    *,
    training: bool = True,
    without: Collection[str] = (),
) -> None:
    """Add a flag for each field of a configuration model.

    What is not given stays out of the namespace; what is given goes to ``SECTION.FIELD`` as text (or bool, None, list),
    for the model to convert and check.

    Parameters
    ----------
    parser:
        Gets a group of flags for each group of the model.
    section, cls, training, without:
        As in `ptychopinn.config.settings.settings_of`. A mark of a field, ``flag_alone``, is what the flag means when
        no value follows it.
    title:
        Of settings that have no group of their own.
    """
    groups: dict[str, Any] = {}
    for setting in settings_of(section, cls, training=training, without=without):
        group_title = setting.group or title
        if group_title not in groups:
            groups[group_title] = parser.add_argument_group(group_title)
        flag = flag_of(setting.name, section)
        common: dict[str, Any] = {
            "dest": f"{section}.{setting.name}",
            "default": argparse.SUPPRESS,
            "help": describe(setting),
        }
        if setting.kind is bool and not setting.optional:
            groups[group_title].add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        else:
            groups[group_title].add_argument(flag, type=_reader(setting), metavar=_metavar(setting.kind), **common)
        if (alone := setting.marks.get("flag_alone")) is not None:
            parser.bind_alone(flag, str(alone), setting.choices)


def flag_of(name: str, section: str = "") -> str:
    """The flag of a field; those of solvers tell whose they are, since others have a batch size and a seed too."""
    return "--" + ("solver-" if section == "solver" else "") + name.replace("_", "-")


def describe(setting: Setting) -> str:
    """A setting's description, default and bounds, as the help shows them."""
    text = setting.description.rstrip(".")
    facts = []
    if setting.default is not None:
        facts.append(f"default: {_plain(setting.default)}")
    elif "default" not in text:
        facts.append("default: none")
    facts += [f"{BOUNDS[side]} {_plain(bound)}" for side, bound in setting.bounds.items()]
    if (alone := setting.marks.get("flag_alone")) is not None:
        facts.append(f"the flag alone: {alone}")
    return f"{text} ({'; '.join(facts)})".replace("%", "%%") if facts else text.replace("%", "%%")


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(_plain(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _reader(setting: Setting) -> Callable[[str], object]:
    def read(text: str) -> object:
        if setting.optional and text.lower() == "none":
            return None
        return [part.strip() for part in text.split(",")] if setting.is_sequence else text

    return read


def _metavar(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "{" + ",".join(str(member.value) for member in kind) + "}"
    if typing.get_origin(kind) in (tuple, list):
        return ",".join(_metavar(member) for member in typing.get_args(kind) if member is not Ellipsis)
    return {int: "INT", float: "FLOAT", bool: "{true,false}"}.get(kind, "TEXT")
