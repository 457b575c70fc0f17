"""Settings of an entry, made from configuration models: a Ptychodus parameter group in, values for the models out.

Every parameter holds text, which pydantic converts and checks when the work begins: a bad value in a settings file is
then refused in words, and does not keep Ptychodus from starting. Empty text is "not given".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from ptychodus.api.observer import Observable, Observer

from ptychopinn.config import RunSettings
from ptychopinn.config.presets import PRESETS, Preset
from ptychopinn.config.settings import Setting, setting_of, settings_of
from ptychopinn.reconstructor import ReconstructorSpec

# Set by the entry or by the data; at home in a run directory, which Ptychodus has none of; or for a training that goes
# on from a model, as none does here.
_EXCLUDED_FIELDS = frozenset({"N", "model_type", "logger", "checkpoint_every", "checkpoint_top_k", "start_probe"})

PRESET = ("", "preset")  # it stands above the sections, and before them: what a settings file gives goes before it
_SECTIONS = ("train", "model", "infer", "execution")


def entry_settings(spec: ReconstructorSpec) -> list[Setting]:
    """The settings of a backend's entries: the preset, then those of the configuration models in order."""
    fields = RunSettings.with_options(spec.options).model_fields
    found = [setting_of(PRESET[0], RunSettings, PRESET[1])]
    for section in _SECTIONS:
        model: Any = fields[section].annotation
        found += settings_of(section, model, without=_EXCLUDED_FIELDS)
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


class EntrySettings(Observer):
    """The parameter group of one entry: a section of settings.ini. A preset that is chosen fills in its values.

    A name that two sections share is written with its section.
    """

    def __init__(self, registry: Any, group: str, settings: Sequence[Setting]) -> None:
        super().__init__()
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
        self._filled: dict[tuple[str, str], str] = {}
        if PRESET in self._parameters:
            self.parameter(*PRESET).add_observer(self)

    def __iter__(self) -> Iterator[tuple[Setting, Any]]:
        """Each setting with its Ptychodus parameter, which holds text."""
        return iter(self._parameters.values())

    def parameter(self, section: str, name: str) -> Any:
        """The Ptychodus parameter of a setting."""
        return self._parameters[section, name][1]

    @property
    def preset(self) -> str | None:
        """The preset that is chosen, for the models to check."""
        return self.parameter(*PRESET).get_value().strip() or None

    def values(self) -> dict[str, dict[str, object]]:
        """Section to field to value, for the models to convert and check."""
        found: dict[str, dict[str, object]] = {}
        for setting, parameter in self:
            if setting.section:
                found.setdefault(setting.section, {})[setting.name] = _value(setting, parameter.get_value().strip())
        return found

    def _update(self, observable: Observable) -> None:
        """Fill in the preset's values. Those of the one before go back to their defaults where nobody changed them."""
        chosen = self.preset
        sections = PRESETS[Preset(chosen)].sections if chosen in list(Preset) else {}
        wanted = {
            (section, name): as_text(value) for section, fields in sections.items() for name, value in fields.items()
        }
        for key, text in self._filled.items():
            setting, parameter = self._parameters[key]
            if key not in wanted and parameter.get_value() == text:
                parameter.set_value(as_text(setting.default))
        for key, text in wanted.items():
            self.parameter(*key).set_value(text)
        self._filled = wanted


def _value(setting: Setting, text: str) -> object:
    if not text and setting.optional:
        return None
    if setting.is_sequence:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def is_path(setting: Setting) -> bool:
    """Whether a setting is a path."""
    return isinstance(setting.kind, type) and issubclass(setting.kind, Path)
