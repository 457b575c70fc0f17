"""Write to streams that may be full, closed, without a reader, or of an encoding that lacks some characters."""

from __future__ import annotations

import contextlib
import os
from typing import TextIO

Stream = TextIO | None
"""A standard stream; None if the process was started without one."""


def is_terminal(stream: Stream) -> bool:
    """Whether a stream is there and leads to a terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def encodable(text: str, stream: TextIO) -> str:
    """A text without characters that the encoding of a stream lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def write_line(stream: Stream, text: str) -> None:
    """Write a line of a result.

    Raises
    ------
    OSError, ValueError
        If it cannot be written.
    """
    if stream is not None:
        stream.write(f"{encodable(text, stream)}\n")


def write_note(stream: Stream, text: str) -> None:
    """Write a line if possible: the work matters more than a note on it."""
    with contextlib.suppress(OSError, ValueError):
        write_line(stream, text)
        if stream is not None:
            stream.flush()


def discard(stream: Stream) -> None:
    """Drop what a stream has not written and all that follows, so that the end of the process does not try again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        assert stream is not None
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class NoteStream:
    """A stream for progress bars and logs, whose writers do not notice failures."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write if possible."""
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(encodable(text, self._stream))
        return len(text)

    def flush(self) -> None:
        """Flush if possible."""
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether it leads to a terminal."""
        return is_terminal(self._stream)

    def fileno(self) -> int:
        """Descriptor, as terminals are asked for their size by it."""
        if self._stream is None:
            raise OSError("there is no stream")
        return self._stream.fileno()
