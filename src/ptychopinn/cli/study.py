"""``ptychopinn study STUDY.yaml -o OUT``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._flags import add_flags, describe
from ptychopinn.cli._parser import Parser, add_json, add_resume
from ptychopinn.cli._progress import progress_monitor
from ptychopinn.cli._settings import load_settings
from ptychopinn.cli._summary import table
from ptychopinn.config.settings import settings_of
from ptychopinn.config.study import StudyConfig
from ptychopinn.config.workers import WorkerOptions
from ptychopinn.errors import PtychoPinnError


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.usage = "%(prog)s STUDY.yaml -o OUT"
    parser.offer_long_help()
    parser.add_argument(
        "config",
        metavar="STUDY",
        help="YAML or JSON: the section 'study', and the sections that all candidates and scans share, with the "
        "settings of 'ptychopinn compare' and 'ptychopinn simulate'.",
    )
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="The directory to make.")
    add_resume(parser, "study")
    add_json(parser)
    axes = [name for name in StudyConfig.model_fields if name not in WorkerOptions.model_fields]
    add_flags(parser, "study", StudyConfig, without=axes)
    keys = {setting.name: describe(setting) for setting in settings_of("study", StudyConfig)}
    parser.list_in_long_help("keys of the section 'study'", keys)


def run(args: argparse.Namespace, console: Console) -> int:
    """Run the study, print medians."""
    from ptychopinn import comparison

    settings = load_settings(args)
    with progress_monitor(console) as monitor:
        result = comparison.study_run(
            settings,
            args.output,
            resume=args.resume,
            overwrite=args.overwrite,
            monitor=monitor,
        )
    for where, reason in result.failed.items():
        console.warn(f"{where} failed: {reason}")
    files = {kind: str(path) for kind, path in result.files.items()}
    if args.json:
        assert settings.study is not None  # else it was refused
        drawn = [m for m in result.medians if f"{m.quantity} {m.metric}" in settings.study.metrics]
        points = [
            {"leg": m.candidate, **vars(m.point), "figure": f"{m.quantity} {m.metric}", "median": m.median}
            for m in drawn
        ]
        console.json({"folder": str(result.folder), "files": files, "medians": points, "failed": dict(result.failed)})
    else:
        for line in table(files):
            console.result(line)
    return PtychoPinnError.exit_code if result.failed else 0
