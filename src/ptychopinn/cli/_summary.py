"""Print results: figures and files of a run, and scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ptychopinn.cli._console import Console
from ptychopinn.cli._parser import Parser
from ptychopinn.errors import UnexplainedDataError
from ptychopinn.monitor import Monitor

if TYPE_CHECKING:
    from ptychopinn.workflows import RunResult


def show_run(result: RunResult, monitor: Monitor, console: Console, *, as_json: bool, strict: bool = False) -> int:
    """Print what a run made, warnings on stderr, figures and files on stdout; return the exit code.

    Raises
    ------
    UnexplainedDataError
        If ``strict``, and the reconstruction does not explain the patterns.
    """
    for warning in result.warnings:
        console.warn(warning)
    files = {kind: str(path) for kind, path in result.files.items()}
    if as_json:
        console.json(
            {
                "folder": str(result.folder),
                "files": files,
                "figures": dict(result.figures),
                "warnings": list(result.warnings),
                "verdict": None if result.verdict is None else dict(result.verdict.record),
            }
        )
    else:
        for line in table({**result.figures, **files}):
            console.result(line)
    if strict and result.verdict is not None and result.verdict.is_refusal:
        raise UnexplainedDataError(
            "The reconstruction does not explain the data (--strict).", "Its likely causes are in the warnings above."
        )
    return console.stop.exit_code if monitor.cancelled else 0


def add_strict(parser: Parser) -> None:
    """Add ``--strict``."""
    parser.add_argument(
        "--strict", action="store_true", help="Exit with 5 if the reconstruction does not explain the data."
    )


def table(values: Mapping[str, object]) -> list[str]:
    """One line a value, in two columns."""
    width = max((len(name) for name in values), default=0)
    return [f"{name:<{width}}  {_plain(value)}" for name, value in values.items()]


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return str(value)
