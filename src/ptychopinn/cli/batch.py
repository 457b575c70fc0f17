"""``ptychopinn batch PLAN -o OUT``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ptychopinn.cli._console import Console
from ptychopinn.cli._flags import add_flags, describe
from ptychopinn.cli._parser import Parser, add_config, add_json, add_resume
from ptychopinn.cli._progress import progress_monitor
from ptychopinn.cli._settings import add_backend_flags, load_settings
from ptychopinn.cli._summary import table
from ptychopinn.config.batch import BatchConfig, BatchItem
from ptychopinn.config.settings import settings_of
from ptychopinn.errors import PtychoPinnError, UsageError


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    from ptychopinn.batch.plan import PLAN_SUFFIXES

    parser.usage = "%(prog)s PLAN -o OUT [FLAGS]"
    parser.offer_long_help()
    parser.add_argument(
        "plan",
        metavar="PLAN",
        help="YAML or JSON with the section 'batch' and the settings of all scans; CSV with the column path, and "
        "perhaps name, start, reference, scan and SECTION.FIELD; or a pattern: 'scans/*.npz'.",
    )
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="The directory to make.")
    add_resume(parser, "batch", resume="Keep the scans that are done, and do the others.")
    parser.add_argument("--backend", help="The framework to compute with (default: as each workflow alone).")
    add_config(parser)
    add_json(parser)
    add_flags(parser, "batch", BatchConfig, without=("scans",))
    keys = {setting.name: describe(setting) for setting in settings_of("batch", BatchItem)}
    parser.list_in_long_help("keys of a scan in the list 'scans' of the section 'batch'", keys)
    plans = [word for word in arguments if not word.startswith("-") and word.endswith(PLAN_SUFFIXES)]
    add_backend_flags(parser, [*arguments, *(f"--config={plan}" for plan in plans if Path(plan).is_file())])


def run(args: argparse.Namespace, console: Console) -> int:
    """Do the batch, and print where its table and report are."""
    from ptychopinn import batch
    from ptychopinn.batch.plan import PLAN_SUFFIXES, plan_values

    if not args.plan.lower().endswith(PLAN_SUFFIXES):
        setattr(args, "batch.scans", plan_values(args.plan)["batch"]["scans"])
    elif args.config is not None:
        raise UsageError(f"Settings are in {args.plan}, and --config names others.", "Leave --config out.")
    else:
        args.config = args.plan
    settings = load_settings(args, spec=args.spec)
    with progress_monitor(console) as monitor:
        result = batch.batch_run(settings, args.output, resume=args.resume, overwrite=args.overwrite, monitor=monitor)
    for name, reason in result.failed.items():
        console.warn(f"{name} failed: {reason}")
    files = {kind: str(path) for kind, path in result.files.items()}
    if args.json:
        scans = [
            {"name": s.name, "status": str(s.status), "score": s.score, "folder": str(s.folder)} for s in result.scans
        ]
        console.json({"folder": str(result.folder), "files": files, "scans": scans, "failed": dict(result.failed)})
    else:
        done = len(result.scans) - len(result.failed)
        for line in table({"scans done": done, "scans failed": len(result.failed), **files}):
            console.result(line)
    return PtychoPinnError.exit_code if result.failed else 0
