"""Refusals of devices in the same words, whichever framework computes."""

from __future__ import annotations

from collections.abc import Sequence

from ptychopinn.errors import ResourceError


def no_cuda(asked: str, framework: str, reason: str, install: str) -> ResourceError:
    """CUDA was asked for and there is none.

    Parameters
    ----------
    asked:
        What was asked for ("cuda:1").
    framework:
        Its name, version and build.
    reason:
        What it lacks.
    install:
        What to do to have CUDA.
    """
    return ResourceError(f"{asked} was asked for, but {framework} {reason}.", f"Use --accelerator cpu, or {install}.")


def no_such_card(number: int, cards: Sequence[str]) -> ResourceError:
    """A card was asked for by a number that none has.

    Parameters
    ----------
    number:
        That number.
    cards:
        Names of those that are there, number 0 first; at least one.
    """
    there = ", ".join(f"cuda:{k} ({name})" for k, name in enumerate(cards))
    return ResourceError(
        f"cuda:{number} was asked for; there {'is' if len(cards) == 1 else 'are'} {there}.",
        "Use one of them; CUDA_VISIBLE_DEVICES may hide others.",
    )
