"""Settings of a run: flags go before the configuration file, and the file before the defaults."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ptychopinn.cli._flags import add_flags, flag_of
from ptychopinn.cli._parser import HELP_FLAGS, Parser
from ptychopinn.config import ExecutionOptions
from ptychopinn.config.build import build
from ptychopinn.config.files import read_config_file
from ptychopinn.config.reading import ReadOptions
from ptychopinn.config.run import AllSettings
from ptychopinn.config.settings import settings_of
from ptychopinn.errors import PtychoPinnError
from ptychopinn.plugins import discover, solver_options
from ptychopinn.reconstructor import ReconstructorSpec


def _choose_backend(arguments: Sequence[str], *, needed: bool) -> ReconstructorSpec | None:
    """The backend that the arguments or their configuration file name, else the default one.

    It is needed before the arguments are parsed, because the flags depend on it.

    Returns
    -------
    The backend; None where help is asked for and there is none, or where none is needed, named or installed.

    Raises
    ------
    PluginError
        If it is not there.
    """
    wants_help = any(a in HELP_FLAGS for a in arguments)
    parser = Parser(add_help=False)
    parser.add_argument("--backend")
    parser.add_argument("--config")
    found, _ = parser.parse_known_args([a for a in arguments if a not in HELP_FLAGS])
    registry = discover()
    try:
        name = found.backend or (_backend_in(found.config) if found.config is not None else None)
        if name is None and not needed and not (registry.specs or registry.broken):
            return None
        return registry.get(name) if name is not None else registry.default()
    except PtychoPinnError:
        if wants_help:
            return None
        raise


def add_backend_flags(
    parser: Parser,
    arguments: Sequence[str],
    *,
    training: bool = True,
    reads: bool = True,
    needed: bool = True,
    without: Collection[str] = (),
) -> None:
    """Add the flags of execution, which are the backend's own, and of reading files; keep the backend as ``spec``.

    It is None if none is ``needed`` and none is installed.
    """
    spec = _choose_backend(arguments, needed=needed)
    add_flags(parser, "execution", spec.options if spec is not None else ExecutionOptions, training=training)
    if reads:
        add_flags(parser, "reading", ReadOptions, without=without)
    parser.set_defaults(spec=spec)


def _backend_in(path: str) -> str | None:
    word = read_config_file(path).get("backend")
    return word if isinstance(word, str) else None


def load_settings(
    args: argparse.Namespace, *, spec: ReconstructorSpec | None = None, training: bool = True
) -> AllSettings[Any, Any]:
    """Merge command line and configuration file, and check every value.

    Parameters
    ----------
    args:
        As `add_flags` fills it; ``config`` may name a file.
    spec:
        The backend whose options `execution` has; None takes those that every backend has.
    training:
        False leaves out what acts on training alone, since the file may be of a training.

    Raises
    ------
    ConfigError
        Naming each flag or key that is unknown or out of bounds.
    """
    file = getattr(args, "config", None)
    values = read_config_file(file) if file is not None else {}
    flags: dict[tuple[str, ...], object] = {tuple(d.split(".")): v for d, v in vars(args).items() if "." in d}
    if getattr(args, "preset", None) is not None:
        flags["preset",] = args.preset
    if spec is not None and (args.backend is not None or isinstance(values.get("backend"), str)):
        flags["backend",] = spec.name  # aliases resolved
    options = ExecutionOptions if spec is None else spec.options
    execution = values.get("execution")
    if not training and isinstance(execution, Mapping):
        offered = [setting.name for setting in settings_of("execution", options, training=False)]
        known = [name for name in options.model_fields if name not in offered]
        values["execution"] = {name: value for name, value in execution.items() if name not in known}
    for (section, *field), value in flags.items():
        if not field:
            values[section] = value
        elif isinstance(values.get(section) or {}, Mapping):  # anything else is refused below
            values[section] = {**(values.get(section) or {}), field[0]: value}

    def name_of(path: Sequence[str]) -> str:
        if tuple(path) in flags or file is None:
            return flag_of(path[-1], path[0])
        section = f" in '{path[0]}'" if len(path) > 1 else ""
        return f"'{path[-1]}'{section} of {file}"

    return build(AllSettings.with_options(options, solver_options(discover())), values, name_of)
