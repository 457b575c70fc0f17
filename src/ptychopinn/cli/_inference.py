"""Flags of the commands that reconstruct with a trained network."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ptychopinn.cli._flags import add_flags, add_preset
from ptychopinn.cli._parser import Parser, add_config, add_json, add_output
from ptychopinn.cli._settings import choose_backend
from ptychopinn.config import ExecutionOptions, InferConfig
from ptychopinn.config.reading import ReadOptions


def add_inference(
    parser: Parser,
    arguments: Sequence[str],
    config: type[InferConfig] = InferConfig,
    without: Collection[str] = (),
) -> None:
    """Add the flags of ``config`` and the others, without those of some fields.

    The flags of execution are the backend's own.
    """
    parser.offer_long_help()
    add_output(parser, "The directory to make.")
    parser.add_argument("--backend", help="The framework to compute with (default: the one that wrote the model).")
    add_preset(parser, ("infer",))
    add_config(parser)
    add_json(parser)
    add_flags(parser, "infer", config, training=False, without=without)
    spec = choose_backend(arguments)
    add_flags(parser, "execution", spec.options if spec is not None else ExecutionOptions, training=False)
    add_flags(parser, "reading", ReadOptions, without=without)
    parser.set_defaults(spec=spec)
