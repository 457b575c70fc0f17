"""Any exception as an error of `ptychopinn.errors`, for a user to read."""

from __future__ import annotations

from pydantic import ValidationError

from ptychopinn.atomic import translate_write_error
from ptychopinn.errors import Cancelled, ConfigError, PtychoPinnError, ResourceError


def explained(error: BaseException) -> PtychoPinnError:
    """The error to show for whatever was raised; one that nobody expected is called a defect."""
    if isinstance(error, PtychoPinnError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("Interrupted.")
    if isinstance(error, MemoryError):
        return ResourceError(
            f"Memory ran out{f' ({error})' if str(error) else ''}.",
            "Lower --batch-size, --inference-batch-size or --memory-budget-mb, or free memory.",
        )
    if isinstance(error, OSError):
        known = translate_write_error(error, error.filename or "A file")
        return known or PtychoPinnError(f"{error}.", "Check the path, and that nobody else is changing it.")
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or error.title
        return ConfigError(f"{where}: {first['msg'].removeprefix('Value error, ')}.", "Change it and try again.")
    return PtychoPinnError(
        f"This is a defect, please report it: {type(error).__name__}: {error}.",
        "Run the command again with --debug for the traceback.",
    )
