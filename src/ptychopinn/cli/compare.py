"""``ptychopinn compare --train TRAIN --test TEST --legs ... -o OUT``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ptychopinn.cli._console import Console
from ptychopinn.cli._flags import add_flags, add_preset
from ptychopinn.cli._parser import Parser, add_config, add_json, add_resume
from ptychopinn.cli._progress import progress_monitor
from ptychopinn.cli._settings import load_settings
from ptychopinn.cli._summary import table
from ptychopinn.config import ExecutionOptions, InferConfig, ModelConfig, TrainConfig
from ptychopinn.config.comparison import NOT_SHARED, ComparisonConfig
from ptychopinn.config.reading import ReadOptions
from ptychopinn.errors import PtychoPinnError, UsageError
from ptychopinn.plugins import discover, solver_options

_MAIN_METRICS = (
    ("run", "passes"),
    ("phase", "ssim"),
    ("amp", "ssim"),
    ("object", "nrmse"),
    ("object", "residual"),
    ("run", "training_seconds"),
)


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.usage = "%(prog)s --train TRAIN.npz --test TEST.npz --legs LEG... -o OUT [FLAGS] | --verify OUT"
    parser.offer_long_help()
    parser.add_argument("--train", metavar="FILE", help="The scan that networks train on.")
    parser.add_argument("--test", metavar="FILE", help="The scan that all reconstruct.")
    parser.add_argument("--train-reference", metavar="FILE", help="Trusted object of the training scan.")
    parser.add_argument("--test-reference", metavar="FILE", help="Trusted object of the test scan.")
    parser.add_argument(
        "--legs",
        dest="comparison.legs",
        default=argparse.SUPPRESS,
        nargs="+",
        metavar="LEG",
        help="BACKEND-pinn, BACKEND-supervised, with -fast or -cnn after it, epie, rpie, or another solver.",
    )
    parser.add_argument("-o", "--output", metavar="OUT", help="The directory to make.")
    parser.add_argument("--verify", metavar="OUT", help="Check a finished comparison again, and do nothing else.")
    add_resume(parser, "comparison")
    add_preset(parser)
    add_config(parser)
    add_json(parser)
    add_flags(parser, "comparison", ComparisonConfig, without=("legs",))
    add_flags(parser, "train", TrainConfig)
    add_flags(parser, "model", ModelConfig, without=NOT_SHARED)
    add_flags(parser, "infer", InferConfig)
    add_flags(parser, "solver", solver_options(discover()))
    add_flags(parser, "execution", ExecutionOptions)
    add_flags(parser, "reading", ReadOptions)


def run(args: argparse.Namespace, console: Console) -> int:
    """Compare, or check a comparison."""
    from ptychopinn import comparison

    if args.verify is not None:
        report = comparison.verify_comparison(args.verify)
        if args.json:
            console.json(report)
        else:
            for check in report["checks"]:
                console.result(f"{'ok    ' if check['passed'] else 'FAILED'}  {check['name']}")
                for line in check["found"]:
                    console.result(f"        {line}")
        return 0 if report["passed"] else PtychoPinnError.exit_code
    settings = load_settings(args)
    missing = [f"--{name}" for name in ("train", "test", "output") if getattr(args, name) is None]
    if not settings.comparison.legs:
        missing.insert(2, "--legs")
    if missing:
        raise UsageError(f"{', '.join(missing)} must be given.", "See ptychopinn compare --help.")
    with progress_monitor(console) as monitor:
        result = comparison.compare_run(
            args.train,
            args.test,
            args.output,
            settings,
            train_reference=args.train_reference,
            test_reference=args.test_reference,
            resume=args.resume,
            overwrite=args.overwrite,
            monitor=monitor,
        )
    for candidate, reason in result.failed.items():
        console.warn(f"{candidate} failed: {reason}")
    _show(result, console, as_json=args.json)
    return PtychoPinnError.exit_code if result.failed else 0


def _show(result: Any, console: Console, *, as_json: bool) -> None:
    """Print the main figures of the test scan, and where the files are."""
    files = {kind: str(path) for kind, path in result.files.items()}
    main: dict[str, dict[str, float | None]] = {}
    for row in result.rows:
        if row.scan == "test" and (row.quantity, row.metric) in _MAIN_METRICS:
            main.setdefault(row.candidate, {})[f"{row.quantity} {row.metric}"] = row.value
    if as_json:
        console.json({"folder": str(result.folder), "files": files, "test": main, "failed": dict(result.failed)})
        return
    for candidate, values in main.items():
        text = ", ".join(f"{name} {'-' if value is None else f'{value:.4g}'}" for name, value in values.items())
        console.result(f"{candidate}: {text}")
    for line in table(files):
        console.result(line)
