"""The argument parser: errors are `UsageError`s, and there is a short help and a long one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from ptychopinn.config.build import suggestion
from ptychopinn.config.conversion import ConversionOptions
from ptychopinn.errors import UsageError

HELP_FLAGS = ("-h", "--help", "--help-all")
_HELP_COLUMN = 28
_CONVERSION_FLAGS = {f"--{name.replace('_', '-')}" for name in ConversionOptions.model_fields}

Section = tuple[str | None, str | None, Sequence[argparse.Action]]
"""Title, text and flags of a part of the help."""


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that raises, and takes no abbreviated flags: they break when flags are added."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", partial(argparse.HelpFormatter, max_help_position=_HELP_COLUMN))
        super().__init__(*args, **kwargs)
        for action in self._actions:  # argparse's own --help
            action.help = "Show this help."
        # Flags of settings that the short help shows, where `offer_long_help` was called. ``--help-all`` shows all
        # settings, in their groups. Flags without a group are in both.
        self.basic: list[argparse.Action] = []
        self._groups: dict[str, Any] = {}
        self._lists: dict[str, Mapping[str, str]] = {}
        self._has_long_help = False
        self._bare_values: dict[str, tuple[str, Sequence[str]]] = {}

    def group(self, title: str) -> Any:
        """The group of flags with a title; made when it is asked for first."""
        if title not in self._groups:
            self._groups[title] = self.add_argument_group(title)
        return self._groups[title]

    def offer_long_help(self) -> None:
        """Add ``--help-all``, and let ``--help`` show only what matters first."""
        self._has_long_help = True
        self.add_argument("--help-all", action=_LongHelp, help="Show this help with all settings.")

    def list_in_long_help(self, title: str, entries: Mapping[str, str]) -> None:
        """Show a list of names and what they mean at the end of the long help."""
        self._lists[title] = entries

    def format_help(self) -> str:
        """The short help, or all of it where there is no long one."""
        if not self._has_long_help:
            return super().format_help()
        own = [group for group in self._action_groups if group not in self._groups.values()]
        sections: list[Section] = [(group.title, group.description, group._group_actions) for group in own]
        sections.append(("settings", None, self.basic))
        return self._format(sections, f"All settings: {self.prog} --help-all")

    def format_long_help(self) -> str:
        """The help with every flag, and the lists after them."""
        groups: list[Section] = [(one.title, one.description, one._group_actions) for one in self._action_groups]
        return self._format([*groups, *self._list_sections()], self.epilog)

    def _format(self, sections: Sequence[Section], end: str | None) -> str:
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for title, text, actions in sections:
            formatter.start_section(title)
            formatter.add_text(text)
            formatter.add_arguments(actions)
            formatter.end_section()
        formatter.add_text(end)
        return formatter.format_help()

    def _list_sections(self) -> Iterator[Section]:
        for title, entries in self._lists.items():
            yield title, None, [argparse.Action([], name, help=text) for name, text in entries.items()]

    def set_bare_value(self, flag: str, value: str, choices: Sequence[str]) -> None:
        """Let ``flag`` stand for ``flag=value`` where none of ``choices`` follows it."""
        self._bare_values[flag] = (value, choices)

    def add_bare_values(self, arguments: Sequence[str]) -> list[str]:
        """Arguments with the values of flags that stand alone. (nargs="?" would swallow a positional.)"""
        following = [*arguments[1:], ""]
        complete = []
        for argument, after in zip(arguments, following, strict=True):
            value, choices = self._bare_values.get(argument, ("", (after,)))
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
        if flag in _CONVERSION_FLAGS:
            raise UsageError(
                f"{flag} is not a flag of '{self.prog}', but of 'ptychopinn convert'.",
                f"Make a changed scan first: ptychopinn convert SCAN -o NEW.npz {flag} ...",
            )
        flags = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        hint = suggestion(flag, flags, likeness=0.7)  # all begin alike
        help_flag = "--help-all" if self._has_long_help else "--help"
        raise UsageError(
            f"{flag} is not a flag of '{self.prog}'{hint if 'mean' in hint else ''}.".replace("?.", "?"),
            f"See {self.prog} {help_flag}.",
        )


class _LongHelp(argparse.Action):
    """Prints the long help and ends the program."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        assert isinstance(parser, Parser)
        print(parser.format_long_help(), end="")
        parser.exit()


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


def add_resume(
    parser: argparse.ArgumentParser, what: str, resume: str = "Keep what is done, by content, and go on."
) -> None:
    """``--resume`` or ``--overwrite``."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--resume", action="store_true", help=resume)
    group.add_argument("--overwrite", action="store_true", help=f"Replace the {what} that is there.")


def add_config(parser: argparse.ArgumentParser) -> None:
    """``--config``."""
    parser.add_argument(
        "--config", metavar="FILE", help="Read settings from a YAML or JSON file; flags override it (default: none)."
    )
