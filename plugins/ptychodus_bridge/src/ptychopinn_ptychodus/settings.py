"""Settings of an entry, made from configuration models: a Ptychodus parameter group in, values for the models out.

Every parameter holds text, which pydantic converts and checks when the work begins: a bad value in a settings file is
then refused in words, and does not keep Ptychodus from starting. Empty text is "not given".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from ptychopinn.config import RunSettings
from ptychopinn.config.settings import Setting, settings_of
from ptychopinn.reconstructor import ReconstructorSpec

# Set by the entry or by the data; at home in a run directory, which Ptychodus has none of; or for a training that goes
# on from a model, as none does here.
_LEFT_OUT = frozenset({"N", "model_type", "logger", "checkpoint_every", "checkpoint_top_k", "start_probe"})


_SECTIONS = ("model", "train", "infer", "execution")


def entry_settings(spec: ReconstructorSpec) -> list[Setting]:
    """The settings of a backend's entries, in the order of their models."""
    fields = RunSettings.with_options(spec.options).model_fields
    found = []
    for section in _SECTIONS:
        model: Any = fields[section].annotation
        found += settings_of(section, model, without=_LEFT_OUT)
    return found


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
                self._group.create_string_parameter(key, as_text(setting.default)),
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
    if setting.is_sequence:
        return [part.strip() for part in text.split(",")]
    return text


def is_path(setting: Setting) -> bool:
    """Whether a setting is a path."""
    return isinstance(setting.kind, type) and issubclass(setting.kind, Path)
