"""``ptychopinn plugins``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from ptychopinn.cli._console import Console
from ptychopinn.cli._parser import Parser, add_json
from ptychopinn.plugins import KNOWN_BACKENDS, BrokenPlugin, Registry, capability_table, discover, missing_requirements


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """List backends, solvers, broken plugins, and what could be installed; imports no framework."""
    registry = discover()
    rows = capability_table(registry)
    if args.json:
        console.json(
            {
                "backends": [asdict(row) for row in rows],
                "solvers": [{"name": name, "summary": solver.summary} for name, solver in registry.solvers.items()],
                "readers": [{"name": name, "summary": reader.summary} for name, reader in registry.readers.items()],
                "broken": [asdict(plugin) for plugin in registry.broken],
            }
        )
        return 0
    for row in rows:
        console.result(f"{row.name}  ({row.distribution})  {row.summary}")
        if row.missing:
            console.result(f"  not usable: {', '.join(row.missing)} missing; install with: {row.install_hint}")
        console.result(f"  can: {', '.join(name for name, able in row.capabilities.items() if able) or 'nothing'}")
        if cannot := [name for name, able in row.capabilities.items() if not able]:
            console.result(f"  cannot: {', '.join(cannot)}")
    for name, solver in registry.solvers.items():
        console.result(f"{name}  ({registry.distributions.get(name, 'ptychopinn')})  solver: {solver.summary}")
        if missing := missing_requirements(solver):
            console.result(f"  not usable: {', '.join(missing)} missing; install with: {solver.install_hint}")
    for line in (*_reader_lines(registry), *map(_broken_line, registry.broken)):
        console.result(line)
    for name, hint in KNOWN_BACKENDS.items():
        if name not in registry.specs:
            console.result(f"{name}  not installed; install with: {hint}")
    return 0


def _reader_lines(registry: Registry) -> list[str]:
    return [
        f"{name}  ({registry.distributions.get(name, 'ptychopinn')})  reader: {reader.summary} "
        f"({', '.join(reader.suffixes)})"
        for name, reader in registry.readers.items()
    ]


def _broken_line(plugin: BrokenPlugin) -> str:
    return f"{plugin.name}  ({plugin.distribution})  broken: {' '.join(plugin.reason.split())}"
