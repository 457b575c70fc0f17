"""Long work for programs that run an event loop: notebooks, servers, control systems."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from ptychopinn.monitor import Monitor

ResultT = TypeVar("ResultT")


async def run_in_thread(
    work: Callable[..., ResultT], *args: Any, monitor: Monitor | None = None, **kwargs: Any
) -> ResultT:
    """Run a workflow (`train_run`, `infer_run`, ...) in a thread, beside the event loop.

    If the coroutine is cancelled, the work is asked to stop: it finishes its step and keeps what it has, as after the
    first Ctrl-C; then the cancellation goes on. A thread cannot be interrupted otherwise.

    Parameters
    ----------
    work:
        Takes a ``monitor``.
    monitor:
        Gets progress, in the thread of the work.
    """
    monitor = monitor or Monitor()
    working = asyncio.ensure_future(asyncio.to_thread(work, *args, monitor=monitor, **kwargs))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError as cancelled:
        monitor.cancel()
        await asyncio.wait([working])
        raise cancelled from working.exception()
