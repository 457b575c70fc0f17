"""Flags generated from the configuration models: a field is declared in one place and appears here by itself."""

from __future__ import annotations

import argparse
import types
import typing
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ptychopinn.cli._parser import Parser


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
        Gets a group of flags.
    section:
        Of the configuration file, "train" say.
    cls:
        The model.
    title:
        Of the group.
    training:
        False leaves out fields marked ``json_schema_extra={"training_only": True}``. Another mark, ``flag_alone``, is
        what the flag means when no value follows it.
    without:
        Fields that get no flag.
    """
    group = parser.add_argument_group(title)
    for name in offered_fields(cls, training=training):
        if name in without:
            continue
        field = cls.model_fields[name]
        flag = flag_of(name, section)
        kind, optional = _kind(field)
        common: dict[str, Any] = {"dest": f"{section}.{name}", "default": argparse.SUPPRESS, "help": describe(field)}
        if kind is bool and not optional:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        else:
            group.add_argument(flag, type=_reader(kind, optional), metavar=_metavar(kind), **common)
        if (alone := _marks(field).get("flag_alone")) is not None:
            parser.bind_alone(flag, str(alone), [str(member.value) for member in kind])


def offered_fields(cls: type[BaseModel], *, training: bool = True) -> list[str]:
    """The fields of a model that a command offers."""
    names = []
    for name, field in cls.model_fields.items():
        if training or not _marks(field).get("training_only"):
            names.append(name)
    return names


def _marks(field: FieldInfo) -> Mapping[str, object]:
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def flag_of(name: str, section: str = "") -> str:
    """The flag of a field; those of solvers tell whose they are, since others have a batch size and a seed too."""
    return "--" + ("solver-" if section == "solver" else "") + name.replace("_", "-")


def describe(field: FieldInfo) -> str:
    """A field's description, default and bounds, as the help shows them."""
    text = (field.description or "").rstrip(".")
    facts = []
    if not field.is_required() and field.default is not None:
        facts.append(f"default: {_plain(field.default)}")
    elif "default" not in text:
        facts.append("default: none")
    facts += _bounds(field)
    if (alone := _marks(field).get("flag_alone")) is not None:
        facts.append(f"the flag alone: {alone}")
    return f"{text} ({'; '.join(facts)})".replace("%", "%%") if facts else text.replace("%", "%%")


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(_plain(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bounds(field: FieldInfo) -> list[str]:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return [
        f"{word} {_plain(getattr(bound, name))}"
        for bound in field.metadata
        for name, word in words.items()
        if hasattr(bound, name)
    ]


def _kind(field: FieldInfo) -> tuple[Any, bool]:
    """The type of a field without its None, and whether it takes None."""
    annotation: Any = field.annotation
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation, False
    members = [member for member in typing.get_args(annotation) if member is not types.NoneType]
    return members[0], len(members) < len(typing.get_args(annotation))


def _reader(kind: Any, optional: bool) -> Callable[[str], object]:
    def read(text: str) -> object:
        if optional and text.lower() == "none":
            return None
        return [part.strip() for part in text.split(",")] if typing.get_origin(kind) in (tuple, list) else text

    return read


def _metavar(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "{" + ",".join(str(member.value) for member in kind) + "}"
    if typing.get_origin(kind) in (tuple, list):
        return ",".join(_metavar(member) for member in typing.get_args(kind) if member is not Ellipsis)
    return {int: "INT", float: "FLOAT", bool: "{true,false}"}.get(kind, "TEXT")
