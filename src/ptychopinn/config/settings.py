"""The settings of configuration models one by one: what flags, panes and the page of settings are made from.

A field declares everything once: ``title`` is its label, ``description`` its help, bounds are pydantic's, and
`marks` says the rest. The group is the `title` of the model that declares it.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

_OFF = frozenset({"0", "false", "none", "off"})
_BOUNDS: Mapping[str, str] = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def marks(
    *,
    unit: str = "",
    basic: bool = False,
    unset: str = "",
    needs: str = "",
    bare_value: str = "",
    **others: bool,
) -> dict[str, Any]:
    """What a field says of itself beside pydantic's own words, for its ``json_schema_extra``.

    Parameters
    ----------
    unit:
        Of a number: s, MiB, px, rad, or what is counted.
    basic:
        Show it in the short help and at the top of a pane; everything else is advanced.
    unset:
        What None means, in a few words: "no limit".
    needs:
        Another field of the model. This one has no effect where that one is off (`is_off`); `Config` refuses it there.
    bare_value:
        What the flag means when no value follows it.
    others:
        ``may_change`` (when a run is resumed), ``training_only``.
    """
    given = {"unit": unit, "basic": basic, "unset": unset, "needs": needs, "bare_value": bare_value, **others}
    return {name: value for name, value in given.items() if value}


def marks_of(field: FieldInfo) -> Mapping[str, Any]:
    """The marks of a field."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def is_off(value: object) -> bool:
    """Whether a value switches its setting off: 0, False, None or off, as text too."""
    return str(value).lower() in _OFF


@dataclass(frozen=True)
class Setting:
    """One field of a configuration model."""

    # Place in a configuration file: ``train``, ``batch_size``.
    section: str
    name: str
    group: str  # title of the model that declares it; the section where that has none
    label: str  # in words, for people
    kind: Any  # its type without None; the first one of a union
    optional: bool  # whether it may be None
    takes_text: bool  # whether text other than `choices` is allowed too
    default: Any  # None if it has none
    description: str  # its help, one sentence or a few
    bounds: Mapping[str, float]  # any of ge, gt, le, lt
    marks: Mapping[str, Any]  # from `marks`

    @property
    def choices(self) -> tuple[str, ...]:
        """What an enumeration or a Literal allows; empty for other kinds."""
        if isinstance(self.kind, type) and issubclass(self.kind, Enum):
            return tuple(str(member.value) for member in self.kind)
        if typing.get_origin(self.kind) is typing.Literal:
            return tuple(str(value) for value in typing.get_args(self.kind))
        return ()

    @property
    def is_sequence(self) -> bool:
        """Whether it has several values."""
        return typing.get_origin(self.kind) in (tuple, list)

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off, and nothing else."""
        return self.kind is bool and not self.optional

    @property
    def is_basic(self) -> bool:
        """Whether the short help and the top of a pane show it."""
        return bool(self.marks.get("basic"))

    @property
    def unit(self) -> str:
        """Unit of a number; empty where it has none."""
        return str(self.marks.get("unit", ""))

    @property
    def unset_text(self) -> str:
        """What None means, in words."""
        return str(self.marks.get("unset", "none"))

    @property
    def default_text(self) -> str:
        """The default in words."""
        return self.unset_text if self.default is None else _plain(self.default)

    @property
    def facts(self) -> list[str]:
        """Default and bounds, as help and tooltips show them."""
        bounds = [f"{_BOUNDS[side]} {_plain(bound)}" for side, bound in self.bounds.items()]
        return [f"default: {self.default_text}", *bounds]


def settings_of(
    section: str, cls: type[BaseModel], *, training: bool = True, without: Collection[str] = ()
) -> list[Setting]:
    """The settings of a configuration model, in order.

    ``training`` False leaves out those with the mark ``training_only``.
    """
    found = [setting_of(section, cls, name) for name in cls.model_fields if name not in without]
    return [setting for setting in found if training or not setting.marks.get("training_only")]


def setting_of(section: str, cls: type[BaseModel], name: str) -> Setting:
    """One setting of a configuration model."""
    field = cls.model_fields[name]
    kinds, optional = _kinds(field.annotation)
    declaring = [base for base in cls.__mro__ if name in getattr(base, "model_fields", ())][-1]
    return Setting(
        section=section,
        name=name,
        group=getattr(declaring, "title", "") or section,
        label=field.title or name[:1].upper() + name[1:].replace("_", " "),
        kind=kinds[0],
        optional=optional,
        takes_text=str in kinds[1:],
        default=None if field.default is PydanticUndefined else field.default,
        description=field.description or "",
        bounds={
            side: getattr(bound, side)
            for bound in field.metadata
            for side in _BOUNDS
            if getattr(bound, side, None) is not None
        },
        marks=marks_of(field),
    )


def _kinds(annotation: Any) -> tuple[list[Any], bool]:
    """The types of a field without None, and whether it may be None."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return [annotation], False
    members = [member for member in typing.get_args(annotation) if member is not types.NoneType]
    return members, len(members) < len(typing.get_args(annotation))


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(_plain(item) for item in value) or "none"
    if value is None:
        return "none"
    if isinstance(value, Enum):
        return str(value.value)
    return f"{value:g}" if isinstance(value, float) else str(value)
