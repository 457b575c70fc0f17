"""Flat keywords to the sections of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ptychopinn.config.automatic import AutomaticConfig
from ptychopinn.config.build import build, suggestion
from ptychopinn.config.conversion import ConversionOptions
from ptychopinn.config.execution import ExecutionOptions
from ptychopinn.config.infer import InferConfig
from ptychopinn.config.model import ModelConfig
from ptychopinn.config.reading import ReadOptions
from ptychopinn.config.run import AllSettings
from ptychopinn.config.solver import SolverOptions
from ptychopinn.config.train import TrainConfig
from ptychopinn.errors import ConfigError
from ptychopinn.plugins import discover

_MODELS: Mapping[str, type[BaseModel]] = {
    "train": TrainConfig,
    "model": ModelConfig,
    "infer": InferConfig,
    "automatic": AutomaticConfig,
    "reading": ReadOptions,
    "conversion": ConversionOptions,
}
_REMEDY = "All settings: docs/settings.md."
_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "read": ("reading", "conversion"),
    "train": ("train", "model", "execution"),
    "infer": ("infer",),
    "load": ("execution",),
    "reconstruct": ("automatic", "execution"),
}


def settings_for(
    verb: str, given: Mapping[str, object], *, backend: str | None = None, preset: str | None = None
) -> AllSettings[Any, Any]:
    """The settings of a verb out of flat keywords.

    Parameters
    ----------
    verb:
        "read", "train", "infer", "load" or "reconstruct".
    given:
        Names of settings, as flags have them with underscores, and their values.
    backend, preset:
        As in `ptychopinn.config.run.RunSettings`.

    Raises
    ------
    ConfigError
        If a name is not a setting of the verb, or a value is out of bounds.
    PluginError
        If the backend is not installed.
    """
    options = ExecutionOptions if backend is None else discover().get(backend).options
    if verb == "train" and backend is None:
        options = discover().default().options
    models = {**_MODELS, "execution": options}
    homes = {name: section for section in _SECTIONS[verb] for name in models[section].model_fields}
    sections: dict[str, dict[str, object]] = {}
    for name, value in given.items():
        if name not in homes:
            raise ConfigError(f"{name} is not a setting of {verb}{_hint(name, homes, models)}", _REMEDY)
        sections.setdefault(homes[name], {})[name] = value
    return build(AllSettings.with_options(options, SolverOptions), {"backend": backend, "preset": preset, **sections})


def _hint(name: str, homes: Mapping[str, str], models: Mapping[str, type[BaseModel]]) -> str:
    """The verb that has a name, or a similar name."""
    for verb, sections in _SECTIONS.items():
        if any(name in models[section].model_fields for section in sections):
            return f"; it belongs to {verb}."
    similar = suggestion(name, homes)
    return similar if "mean" in similar else "."
