"""Check that a path is a regular file before opening it (pipes block, devices never end)."""

from __future__ import annotations

import os
import stat

from ptychopinn.typing import StrPath


def why_unreadable(path: StrPath) -> str | None:
    """Why a path cannot be read as a regular file, as the end of a sentence that starts with the path; else None."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "is not there"
    except (OSError, ValueError) as error:  # a loop of links, a name that is too long or contains a zero character
        return f"cannot be opened: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISDIR(mode):
        return "is a folder"
    if not stat.S_ISREG(mode):
        return "is not a regular file but a pipe, a socket or a device"
    return None
