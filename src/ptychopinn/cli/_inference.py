"""Flags of the commands that reconstruct with a trained network."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ptychopinn.cli._flags import add_flags, add_preset
from ptychopinn.cli._parser import Parser, add_config, add_json, add_output
from ptychopinn.cli._settings import add_backend_flags
from ptychopinn.config import InferConfig


def add_inference(
    parser: Parser,
    arguments: Sequence[str],
    config: type[InferConfig] = InferConfig,
    without: Collection[str] = (),
) -> None:
    """Add the flags of ``config`` and the others, without those of some fields."""
    parser.offer_long_help()
    add_output(parser, "The directory to make.")
    parser.add_argument("--backend", help="The framework to compute with (default: the one that wrote the model).")
    add_preset(parser, ("infer",))
    add_config(parser)
    add_json(parser)
    add_flags(parser, "infer", config, training=False, without=without)
    add_backend_flags(parser, arguments, training=False, without=without)
