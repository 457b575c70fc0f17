"""What a reader of a file format is, and the hook with which a plugin offers some."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pluggy

from ptychopinn.data.raw_scan import RawScan

PROJECT = "ptychopinn"
_hookspec = pluggy.HookspecMarker(PROJECT)


@dataclass(frozen=True)
class ReaderSpec:
    """A reader of a file format.

    Attributes
    ----------
    name:
        Lower-case letters, digits and inner dashes.
    summary:
        One line.
    suffixes:
        Usual endings of its files, lower case with the dot; such files are offered to it first.
    sniff:
        Whether a file is of this format. Quick: it looks at names and shapes, not at values. It may raise the
        exceptions of a damaged file, which count as no.
    read:
        The scan of a file. It raises `ptychopinn.errors.DataError` for what it refuses, runs no code of the file, and
        opens no file outside the folder.
    """

    name: str
    summary: str
    suffixes: tuple[str, ...]
    sniff: Callable[[Path], bool]
    read: Callable[[Path], RawScan]


@_hookspec
def ptychopinn_readers() -> Iterable[ReaderSpec]:  # type: ignore[empty-body]
    """Return the readers of this distribution.

    Returns
    -------
    Any iterable of `ReaderSpec`; names must be unique among all installed readers. The hook takes no arguments and must
    be quick.
    """
