"""Memory that ran out, told as what it is whoever noticed it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ptychopinn.errors import ResourceError

# Of frameworks that raise a RuntimeError, and of Python for a thread that finds no room for its stack.
_SIGNS = ("allocate memory", "out of memory", "could not create a primitive", "can't start new thread")


@contextmanager
def memory_told() -> Iterator[None]:
    """Raise a `ResourceError` where memory runs out.

    Raises
    ------
    ResourceError
        Instead of a MemoryError, or a RuntimeError that means the same.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in _SIGNS):
            raise
        raise ResourceError(
            f"Memory ran out{f' ({error!s:.200})' if str(error) else ''}.",
            "Free memory, raise the process's limit, or lower --batch-size, --inference-batch-size or "
            "--memory-budget-mb.",
        ) from error
