"""Entry point: parse, run one command, turn every error into one paragraph and an exit code."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Protocol, cast

from ptychopinn.cli._console import Console, OutputError
from ptychopinn.cli._legacy import normalise
from ptychopinn.cli._parser import Parser, add_common
from ptychopinn.errors import Cancelled
from ptychopinn.failures import explained
from ptychopinn.system import check_address_space

COMMANDS: Mapping[str, str] = {
    "reconstruct": "Reconstruct a scan in a given time, without any decision.",
    "train": "Train a network on a scan, without ground truth.",
    "pretrain": "Train a network on simulated patterns alone, for any scan.",
    "infer": "Reconstruct a scan with a trained network.",
    "stream": "Reconstruct a scan while it is measured.",
    "evaluate": "Score a reconstruction against a reference.",
    "batch": "Reconstruct, train, infer or evaluate many scans.",
    "compare": "Compare reconstructors on the same scans.",
    "study": "Compare reconstructors over a grid of simulated scans.",
    "parity": "Find the first stage at which two backends or two models differ.",
    "simulate": "Make a scan of a simulated object.",
    "convert": "Convert a scan file to the canonical form.",
    "validate": "List everything that is wrong with scan files.",
    "inspect": "Show a scan, and try which axes, signs, scale, order and probe fit.",
    "plugins": "List the backends and what they can do.",
    "doctor": "Describe this machine and what is installed, for a bug report.",
    "demo": "Simulate, train, save, load, reconstruct and score, in some minutes.",
}

_EPILOG = (
    "Exit codes: 0 done, 1 failure, 2 usage, 3 input refused, 4 out of memory, disk or device, 5 data not explained "
    "(--strict), 130 interrupted, 128 + N stopped by signal N. "
    "'ptychopinn COMMAND --help' lists a command's flags."
)


_COMMON = {"--quiet", "--debug"}


class Command(Protocol):
    """What the module of a command has."""

    def configure(self, parser: Parser, arguments: Sequence[str]) -> None:
        """Add the command's flags; ``arguments`` are all that were given."""

    def run(self, args: argparse.Namespace, console: Console) -> int:
        """Do it and return the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with some arguments, by default ``sys.argv[1:]``, and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    console = Console(quiet="--quiet" in arguments, debug="--debug" in arguments)
    try:
        with console.stop.handled(console.say), console.logging():
            check_address_space()
            return console.finish(_run(arguments, console))
    except OutputError as lost:
        return console.give_up_output(lost.reason)
    except (Exception, KeyboardInterrupt) as error:
        if console.debug:
            console.print_traceback()
        failure = explained(error)
        if isinstance(error, KeyboardInterrupt):
            console.say(failure.problem)
        else:
            console.error(failure)
        return console.finish(console.stop.exit_code if isinstance(failure, Cancelled) else failure.exit_code)


def _run(arguments: Sequence[str], console: Console) -> int:
    normal = normalise(arguments)
    chosen = next((a for a in normal if not a.startswith("-")), None)
    parser = Parser(prog="ptychopinn", description="Neural ptychography reconstruction.", epilog=_EPILOG)
    parser.add_argument(
        "--version", action="version", version=f"ptychopinn {version('ptychopinn')}", help="Show the version."
    )
    add_common(parser)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers: dict[str, Parser] = {}
    for name, summary in COMMANDS.items():
        parsers[name] = subparsers.add_parser(name, help=summary, description=summary)
    if not set(normal) - _COMMON:
        console.result(parser.format_help().rstrip())
        return 0
    command = None
    if chosen is not None and chosen in COMMANDS:
        command = cast(Command, importlib.import_module(f"ptychopinn.cli.{chosen}"))
        command.configure(parsers[chosen], normal)
        add_common(parsers[chosen])
        normal = parsers[chosen].add_bare_values(normal)
    try:
        args, unknown = parser.parse_known_args(normal)
    except SystemExit as done:  # --help and --version
        return int(done.code or 0)
    parsers.get(args.command, parser).refuse_unknown(unknown)
    assert command is not None  # argparse refuses what is not in COMMANDS
    return command.run(args, console)
