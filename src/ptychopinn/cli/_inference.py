"""Flags that the commands share which reconstruct with a trained network."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ptychopinn.cli._flags import add_flags
from ptychopinn.cli._parser import Parser, add_config, add_json, add_output
from ptychopinn.cli._settings import choose_backend
from ptychopinn.config import ExecutionOptions, InferConfig
from ptychopinn.config.reading import ReadOptions


def add_inference(parser: Parser, arguments: Sequence[str], without: Collection[str] = ()) -> None:
    """Add them, without those of some fields; those of execution are the backend's own."""
    parser.add_argument("--backend", help="The framework to compute with (default: the one that wrote the model).")
    add_config(parser)
    add_json(parser)
    add_output(parser, "The directory to make.")
    add_flags(parser, "reading", ReadOptions, "reading of scans", without=without)
    add_flags(parser, "infer", InferConfig, "reconstruction", training=False, without=without)
    spec = choose_backend(arguments)
    options = spec.options if spec is not None else ExecutionOptions
    add_flags(parser, "execution", options, "execution", training=False)
    parser.set_defaults(spec=spec)
