"""The argument parser: errors are `UsageError`s, and a misspelt flag is told the nearest one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from ptychopinn.config.build import suggestion
from ptychopinn.errors import UsageError


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that raises, and takes no abbreviated flags: they break when flags are added."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        self._alone: dict[str, tuple[str, Sequence[str]]] = {}

    def bind_alone(self, flag: str, value: str, choices: Sequence[str]) -> None:
        """Let ``flag`` stand for ``flag=value`` where none of ``choices`` follows it."""
        self._alone[flag] = (value, choices)

    def complete(self, arguments: Sequence[str]) -> list[str]:
        """Arguments with the values of flags that stand alone. (nargs="?" would swallow a positional.)"""
        following = [*arguments[1:], ""]
        complete = []
        for argument, after in zip(arguments, following, strict=True):
            value, choices = self._alone.get(argument, ("", (after,)))
            complete.append(argument if after in choices else f"{argument}={value}")
        return complete

    def error(self, message: str) -> NoReturn:
        """Raise the message as a `UsageError`."""
        raise UsageError(f"{message[:1].upper()}{message[1:].rstrip('.')}.", f"See {self.prog} --help.")

    def refuse_unknown(self, unknown: Sequence[str]) -> None:
        """Raise a `UsageError` for arguments that were not understood, if there are any."""
        if not unknown:
            return
        flag = unknown[0].partition("=")[0]
        if not flag.startswith("-"):
            raise UsageError(f"The argument '{flag}' is one too many.", f"See {self.prog} --help.")
        flags = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        hint = suggestion(flag, flags)
        raise UsageError(
            f"{flag} is not a flag of '{self.prog}'{hint if 'mean' in hint else ''}.".replace("?.", "?"),
            f"See {self.prog} --help.",
        )


def add_common(parser: argparse.ArgumentParser) -> None:
    """Flags that every command has."""
    parser.add_argument(
        "--quiet", action="store_true", default=argparse.SUPPRESS, help="Print errors and results, nothing else."
    )
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="Print the log, and tracebacks of errors."
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="Print the result as JSON.")


def add_output(
    parser: argparse.ArgumentParser, what: str, *, required: bool = True, default: str | None = None
) -> None:
    """``-o`` and ``--overwrite``."""
    parser.add_argument("-o", "--output", required=required, default=default, metavar="PATH", help=what)
    parser.add_argument("--overwrite", action="store_true", help="Replace what is there.")


def add_config(parser: argparse.ArgumentParser) -> None:
    """``--config``."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML or JSON with sections for each group of flags below; flags override it.",
    )
