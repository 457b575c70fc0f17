"""Flags that the commands share which reconstruct with a trained network."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from typing import Any

from ptychopinn.cli._flags import add_flags
from ptychopinn.cli._parser import Parser, add_config, add_json, add_output
from ptychopinn.cli._settings import choose_backend, gather
from ptychopinn.config import ExecutionOptions, InferConfig


def add_inference(parser: Parser, arguments: Sequence[str], without: Collection[str] = ()) -> None:
    """Add them but those of some fields; those of execution are the backend's own."""
    parser.add_argument("--backend", help="The framework to compute with (default: the one that wrote the model).")
    add_config(parser)
    add_json(parser)
    add_output(parser, "The directory to make.")
    add_flags(parser, "infer", InferConfig, "reconstruction", training=False, without=without)
    spec = choose_backend(arguments)
    options = spec.options if spec is not None else ExecutionOptions
    add_flags(parser, "execution", options, "execution", training=False)
    parser.set_defaults(spec=spec)


def inference_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that the workflows share."""
    settings = gather(args, {"infer": InferConfig, "execution": args.spec.options}, training=False)
    return {
        "infer": settings.given["infer"],
        "options": settings.given["execution"],
        "backend": args.spec.name if "backend" in settings.words else None,
        "measurement": settings.measurement,
        "overwrite": args.overwrite,
    }
