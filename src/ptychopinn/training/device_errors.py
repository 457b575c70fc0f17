"""Errors for missing devices, the same for every framework."""

from __future__ import annotations

from collections.abc import Sequence

from ptychopinn.errors import ResourceError


def no_cuda(asked: str, framework: str, reason: str, install: str) -> ResourceError:
    """The error for CUDA that is not available; ``reason`` follows the name and version of the framework."""
    return ResourceError(f"{asked} was asked for, but {framework} {reason}.", f"Use --accelerator cpu, or {install}.")


def no_such_card(number: int, cards: Sequence[str]) -> ResourceError:
    """The error for a card number that does not exist; ``cards`` are the names of the existing cards in order."""
    there = ", ".join(f"cuda:{k} ({name})" for k, name in enumerate(cards))
    return ResourceError(
        f"cuda:{number} was asked for; there {'is' if len(cards) == 1 else 'are'} {there}.",
        "Use one of them; CUDA_VISIBLE_DEVICES may hide others.",
    )
