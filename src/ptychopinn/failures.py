"""Translate any exception into an error of `ptychopinn.errors`."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from ptychopinn.atomic import translate_write_error
from ptychopinn.errors import Cancelled, ConfigError, PtychoPinnError, ResourceError

# Messages of frameworks that raise a RuntimeError, and of Python if a thread has no memory for its stack.
_MEMORY_SIGNS = ("allocate memory", "out of memory", "could not create a primitive", "can't start new thread")


def explained(error: BaseException) -> PtychoPinnError:
    """The error to show for an exception; an unexpected one is reported as a defect."""
    if isinstance(error, PtychoPinnError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("Interrupted.")
    if is_out_of_memory(error):
        return ResourceError(
            f"Memory ran out{f' ({error!s:.200})' if str(error) else ''}.",
            "Lower --batch-size, --inference-batch-size or --memory-budget-mb, free memory, or raise the limit.",
        )
    if isinstance(error, OSError):
        known = translate_write_error(error, error.filename or "A file")
        return known or PtychoPinnError(f"{error}.", "Check the path, and that no other program changes it.")
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or error.title
        return ConfigError(f"{where}: {first['msg'].removeprefix('Value error, ')}.", "Change it and try again.")
    return PtychoPinnError(
        f"This is a defect, please report it: {type(error).__name__}: {error}.",
        "Run the command again with --debug for the traceback.",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of Python, the system or a framework means that memory ran out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _MEMORY_SIGNS)
    )


@contextmanager
def memory_explained() -> Iterator[None]:
    """Translate out-of-memory errors into `ResourceError`.

    Raises
    ------
    ResourceError
        Instead of a MemoryError, or a RuntimeError or OSError that means the same.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise explained(error) from error
