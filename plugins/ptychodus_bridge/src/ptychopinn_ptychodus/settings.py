"""Settings of an entry, made from configuration models: a Ptychodus parameter group in, values for the models out.

Every parameter holds text, which pydantic converts and checks when the work begins: a bad value in a settings file is
then refused in words, and does not keep Ptychodus from starting. Empty text is "not given".
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ptychopinn.config import InferConfig, ModelConfig, TrainConfig
from ptychopinn.reconstructor import ReconstructorSpec

# Set by the entry or by the data; at home in a run directory, which Ptychodus has none of; or for a training that goes
# on from a model, as none does here.
_LEFT_OUT = frozenset({"N", "model_type", "logger", "checkpoint_every", "checkpoint_top_k", "start_probe"})


@dataclass(frozen=True)
class Setting:
    """One field of a configuration model.

    Attributes
    ----------
    section, name:
        Of the configuration: ``train``, ``batch_size``.
    kind:
        Its type without None.
    optional:
        Whether it may be left out, as empty text.
    open:
        Whether its type is an enumeration or other text.
    default:
        As text.
    description:
        For the tooltip.
    bounds:
        Any of ge, gt, le, lt.
    """

    section: str
    name: str
    kind: Any
    optional: bool
    open: bool
    default: str
    description: str
    bounds: Mapping[str, float]

    @property
    def choices(self) -> tuple[str, ...]:
        """What an enumeration allows; empty for other kinds."""
        if isinstance(self.kind, type) and issubclass(self.kind, Enum):
            return tuple(str(member.value) for member in self.kind)
        if typing.get_origin(self.kind) is typing.Literal:
            return tuple(str(value) for value in typing.get_args(self.kind))
        return ()


def sections_of(spec: ReconstructorSpec) -> dict[str, type[BaseModel]]:
    """Section name to its model, for one backend."""
    return {"model": ModelConfig, "train": TrainConfig, "infer": InferConfig, "execution": spec.options}


def settings_of(spec: ReconstructorSpec) -> list[Setting]:
    """The settings of a backend's entries, in the order of their models."""
    return [
        _setting(section, name, field)
        for section, cls in sections_of(spec).items()
        for name, field in cls.model_fields.items()
        if name not in _LEFT_OUT
    ]


def _setting(section: str, name: str, field: FieldInfo) -> Setting:
    kinds, optional = _kinds(field.annotation)
    return Setting(
        section=section,
        name=name,
        kind=kinds[0],
        optional=optional,
        open=str in kinds[1:],
        default=as_text(None if field.default is PydanticUndefined else field.default),
        description=field.description or "",
        bounds={
            side: float(getattr(bound, side))
            for bound in field.metadata
            for side in ("ge", "gt", "le", "lt")
            if getattr(bound, side, None) is not None
        },
    )


def _kinds(annotation: Any) -> tuple[list[Any], bool]:
    """The types that a field may have but None, and whether it may be None."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return [annotation], False
    members = [member for member in typing.get_args(annotation) if member is not types.NoneType]
    return members, len(members) < len(typing.get_args(annotation))


def as_text(value: object) -> str:
    """A value as it stands in a settings file."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(as_text(item) for item in value)
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


class EntrySettings:
    """The parameter group of one entry.

    Parameters
    ----------
    registry:
        Ptychodus's settings registry; the group is made in it.
    group:
        Name of the group, a section of settings.ini.
    settings:
        What it holds. A name that two sections share is written with its section.
    """

    def __init__(self, registry: Any, group: str, settings: Sequence[Setting]) -> None:
        self.group = group
        self._group = registry.create_group(group)
        names = [setting.name for setting in settings]
        self._parameters = {}
        for setting in settings:
            key = setting.name if names.count(setting.name) == 1 else f"{setting.section}_{setting.name}"
            self._parameters[setting.section, setting.name] = (
                setting,
                self._group.create_string_parameter(key, setting.default),
            )

    def __iter__(self) -> Iterator[tuple[Setting, Any]]:
        """Each setting with its Ptychodus parameter, which holds text."""
        return iter(self._parameters.values())

    def parameter(self, section: str, name: str) -> Any:
        """The Ptychodus parameter of a setting."""
        return self._parameters[section, name][1]

    def values(self) -> dict[str, dict[str, object]]:
        """Section to field to value, for the models to convert and check."""
        found: dict[str, dict[str, object]] = {}
        for setting, parameter in self:
            found.setdefault(setting.section, {})[setting.name] = _value(setting, parameter.get_value().strip())
        return found


def _value(setting: Setting, text: str) -> object:
    if not text and setting.optional:
        return None
    if typing.get_origin(setting.kind) in (tuple, list):
        return [part.strip() for part in text.split(",")]
    return text


def is_path(setting: Setting) -> bool:
    """Whether a setting is a path."""
    return isinstance(setting.kind, type) and issubclass(setting.kind, Path)
