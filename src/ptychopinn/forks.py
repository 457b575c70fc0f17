"""Refuse to compute in a process that was forked from one that has computed.

A fork copies the locks and the records of a framework's threads, but not the threads: the copy waits for them for ever.
"""

from __future__ import annotations

import functools
import os

from ptychopinn.errors import UsageError


def check_not_forked(framework: str) -> None:
    """Note that a framework, named as in messages, computes in this process.

    Raises UsageError if it has computed before in a process that this one was forked from.
    """
    first = _first_process(framework)
    if first != os.getpid():
        raise UsageError(
            f"This process was forked from process {first}, in which {framework} has computed: its threads are missing "
            "here, and it would wait for them for ever.",
            "Start processes with multiprocessing.get_context('spawn'), or before anything is computed.",
        )


@functools.cache
def _first_process(framework: str) -> int:
    """The process in which this was called first; a fork inherits the answer."""
    return os.getpid()
