"""Translate any exception into an error of `ptychopinn.errors`."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pydantic import ValidationError

from ptychopinn.atomic import translate_write_error
from ptychopinn.errors import Cancelled, ConfigError, PluginError, PtychoPinnError, ResourceError
from ptychopinn.system import address_space_limit

ResultT = TypeVar("ResultT")
IsOutOfMemory = Callable[[BaseException], bool]

# Of frameworks that raise a RuntimeError, and of Python for a thread that finds no room for its stack.
_MEMORY_SIGNS = ("allocate memory", "out of memory", "could not create a primitive", "can't start new thread")
# Of the loader of libraries.
_NO_MEMORY_TO_IMPORT = ("Cannot allocate memory", "failed to map segment", "cannot allocate")
# Of code that swallows a MemoryError: `linecache`, which PyTorch's scripts need, and C. They count under a limit alone.
_SWALLOWED = ("could not get source code", "error return without exception set")


def explained(error: BaseException) -> PtychoPinnError:
    """The error to show for an exception; an unexpected one is reported as a defect."""
    if isinstance(error, PtychoPinnError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("Interrupted.")
    if is_out_of_memory(error):
        return _memory_error(error)
    if isinstance(error, OSError):
        known = translate_write_error(error, error.filename or "A file")
        return known or PtychoPinnError(f"{error}.", "Check the path, and that no other program changes it.")
    if isinstance(error, ImportError):
        return PluginError.of_import(error)
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or error.title
        return ConfigError(f"{where}: {first['msg'].removeprefix('Value error, ')}.", "Change it and try again.")
    return PtychoPinnError(
        f"This is a defect, please report it: {type(error).__name__}: {error}.",
        "Run the command again with --debug for the traceback.",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, in the words of Python, the system, or several frameworks.

    The test of a backend begins with this one and knows its framework's own exceptions too.
    """
    if isinstance(error, OSError | ImportError | SystemError):
        no_memory = getattr(error, "errno", None) == errno.ENOMEM
        signs = _NO_MEMORY_TO_IMPORT if address_space_limit() is None else _NO_MEMORY_TO_IMPORT + _SWALLOWED
        return no_memory or any(sign in str(error) for sign in signs)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _MEMORY_SIGNS)
    )


def _memory_error(error: BaseException, place: str = "") -> ResourceError:
    where, what = (f" on {place}" if place else ""), (f" ({error!s:.200})" if str(error) else "")
    return ResourceError(
        f"Memory ran out{where}{what}.",
        "Lower --batch-size, --inference-batch-size or --memory-budget-mb, free memory, raise the limit, or use "
        "another device.",
    )


@contextmanager
def memory_explained(out_of_memory: IsOutOfMemory = is_out_of_memory, place: str = "") -> Iterator[None]:
    """Raise a `ResourceError` that names a place where memory runs out, as ``out_of_memory`` tells.

    Raises
    ------
    ResourceError
        Instead of such an exception.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, PtychoPinnError) or not out_of_memory(error):
            raise
        raise _memory_error(error, place) from error


def retry_smaller(
    compute: Callable[[], ResultT], shrink: Callable[[Exception], None], out_of_memory: IsOutOfMemory
) -> ResultT:
    """What a function computes; where memory runs out, it is called again when the work was made smaller.

    Whatever ``compute`` changes must be the same when it is called again. ``shrink`` makes the work smaller and logs
    it; it raises a `ResourceError` where that is not possible.
    """
    while True:
        try:
            return compute()
        except Exception as error:
            if not out_of_memory(error):
                raise
            shrink(error)
