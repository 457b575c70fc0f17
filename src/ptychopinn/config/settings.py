"""Descriptions of the fields of configuration models, for flags, panes and tables."""

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

BOUNDS: Mapping[str, str] = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@dataclass(frozen=True)
class Setting:
    """One field of a configuration model.

    Attributes
    ----------
    section, name:
        Place in a configuration file: ``train``, ``batch_size``.
    group:
        Title of the model that declares it, if the section consists of several; else empty.
    kind:
        Its type without None; the first one of a union.
    optional:
        Whether it may be None.
    takes_text:
        Whether text other than `choices` is allowed too.
    default:
        None if it has none.
    description:
        One sentence.
    bounds:
        Any of ge, gt, le, lt.
    marks:
        Its ``json_schema_extra``.
    """

    section: str
    name: str
    group: str
    kind: Any
    optional: bool
    takes_text: bool
    default: Any
    description: str
    bounds: Mapping[str, float]
    marks: Mapping[str, object]

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


def settings_of(
    section: str, cls: type[BaseModel], *, training: bool = True, without: Collection[str] = ()
) -> list[Setting]:
    """The settings of a configuration model, in order.

    Parameters
    ----------
    training:
        False leaves out fields marked ``json_schema_extra={"training_only": True}``.
    without:
        Fields to leave out.
    """
    found = [_setting(section, cls, name, field) for name, field in cls.model_fields.items() if name not in without]
    return [setting for setting in found if training or not setting.marks.get("training_only")]


def _setting(section: str, cls: type[BaseModel], name: str, field: FieldInfo) -> Setting:
    kinds, optional = _kinds(field.annotation)
    declaring = [base for base in cls.__mro__ if name in getattr(base, "model_fields", ())][-1]
    return Setting(
        section=section,
        name=name,
        group=getattr(declaring, "title", ""),
        kind=kinds[0],
        optional=optional,
        takes_text=str in kinds[1:],
        default=None if field.default is PydanticUndefined else field.default,
        description=field.description or "",
        bounds={
            side: getattr(bound, side)
            for bound in field.metadata
            for side in BOUNDS
            if getattr(bound, side, None) is not None
        },
        marks=field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {},
    )


def _kinds(annotation: Any) -> tuple[list[Any], bool]:
    """The types of a field without None, and whether it may be None."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return [annotation], False
    members = [member for member in typing.get_args(annotation) if member is not types.NoneType]
    return members, len(members) < len(typing.get_args(annotation))
