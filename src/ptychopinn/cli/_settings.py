"""Settings of a run: command line before configuration file before default, checked together."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, create_model

from ptychopinn.cli._flags import flag_of, offered_fields
from ptychopinn.cli._parser import Parser
from ptychopinn.config import ExecutionOptions, InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.config.build import build
from ptychopinn.config.comparison import ComparisonConfig
from ptychopinn.config.files import check_sections, read_config_file
from ptychopinn.config.solver import SolverOptions
from ptychopinn.config.study import StudyConfig
from ptychopinn.data.dataset import Measurement
from ptychopinn.errors import ConfigError, PtychoPinnError
from ptychopinn.plugins import discover
from ptychopinn.reconstructor import ReconstructorSpec

WORDS: Mapping[str, str] = {"backend": "the backend", "measurement": "counts or amplitude"}


@dataclass(frozen=True)
class Settings:
    """What was asked for, converted and checked.

    Attributes
    ----------
    words:
        Top-level words (backend, measurement) that were given.
    given:
        Section name to the fields that were given, in their own types.
    """

    words: Mapping[str, str]
    given: Mapping[str, Mapping[str, Any]]

    @property
    def measurement(self) -> Measurement | None:
        """The domain of the patterns, if one was given.

        Raises
        ------
        ConfigError
            If a file gave a word that is none.
        """
        word = self.words.get("measurement")
        if word is not None and word not in list(Measurement):
            raise ConfigError(
                f"'measurement' is {word!r}; it must be {' or '.join(Measurement)}.", "Change it and try again."
            )
        return None if word is None else Measurement(word)


def solver_options() -> type[BaseModel]:
    """Options of the core's solvers, and what those that are installed add; where they compute is for `execution`."""
    added: dict[str, Any] = {}
    for spec in discover().solvers.values():
        for name, field in spec.options.model_fields.items():
            if name not in SolverOptions.model_fields and name not in ExecutionOptions.model_fields:
                added.setdefault(name, (field.annotation, field))
    return create_model("Solvers", __base__=SolverOptions, **added)


def known_sections(options: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Every section that a configuration file may have; a command reads its own."""
    return {
        "model": ModelConfig,
        "train": TrainConfig,
        "infer": InferConfig,
        "execution": options,
        "simulation": SimulationConfig,
        "solver": solver_options(),
        "comparison": ComparisonConfig,
        "study": StudyConfig,
    }


def choose_backend(arguments: Sequence[str]) -> ReconstructorSpec | None:
    """The backend that arguments or their configuration file name, else the default one, before the flags are known.

    Returns
    -------
    The backend; None only where help is asked for and there is none.

    Raises
    ------
    PluginError
        If it is not there.
    """
    wants_help = any(a in ("-h", "--help") for a in arguments)
    parser = Parser(add_help=False)
    parser.add_argument("--backend")
    parser.add_argument("--config")
    found, _ = parser.parse_known_args([a for a in arguments if a not in ("-h", "--help")])
    registry = discover()
    try:
        name = found.backend or (_word_in(found.config, "backend") if found.config is not None else None)
        return registry.get(name) if name is not None else registry.default()
    except PtychoPinnError:
        if wants_help:
            return None
        raise


def _word_in(path: str, key: str) -> str | None:
    word = read_config_file(path).get(key)
    return word if isinstance(word, str) else None


def gather(args: argparse.Namespace, sections: Mapping[str, type[BaseModel]], *, training: bool = True) -> Settings:
    """Merge command line and configuration file, and check every value.

    Parameters
    ----------
    args:
        As `add_flags` fills it; ``config`` may name a file.
    sections:
        The sections this command reads.
    training:
        As in `add_flags`; fields left out there are left out here, too, since the file may be of a training.

    Raises
    ------
    ConfigError
        Naming each flag or key that is unknown or out of bounds.
    """
    file = getattr(args, "config", None)
    parsed = read_config_file(file) if file is not None else {}
    if file is not None:
        check_sections(file, parsed, known_sections(sections.get("execution", ExecutionOptions)), WORDS)
    given: dict[str, dict[str, Any]] = {}
    for section, cls in sections.items():
        fields = offered_fields(cls, training=training)
        flags = {name: getattr(args, f"{section}.{name}") for name in fields if hasattr(args, f"{section}.{name}")}
        values = {name: value for name, value in (parsed.get(section) or {}).items() if name in fields} | flags

        def name_of(field: str, flags: Mapping[str, Any] = flags, section: str = section) -> str:
            return flag_of(field, section) if field in flags or file is None else f"'{field}' in '{section}' of {file}"

        model = build(cls, values, name_of)
        given[section] = {name: getattr(model, name) for name in values}
    words = {word: parsed[word] for word in WORDS if word in parsed}
    words |= {word: getattr(args, word) for word in WORDS if getattr(args, word, None) is not None}
    return Settings(words, given)
