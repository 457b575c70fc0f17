"""What a path leads to, before it is opened: a pipe would wait for ever, a device would never end."""

from __future__ import annotations

import os
import stat

from ptychopinn.typing import StrPath


def why_unreadable(path: StrPath) -> str | None:
    """Why a path cannot be read as an ordinary file: the end of a sentence that begins with the path; else None."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "is not there"
    except (OSError, ValueError) as error:  # a loop of links, a name too long, a zero character in it
        return f"cannot be opened: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISDIR(mode):
        return "is a folder"
    if not stat.S_ISREG(mode):
        return "is no ordinary file but a pipe, a socket or a device"
    return None
