"""Back up an earlier run until the new one has results, so that a failure or a kill never loses both.

The files are kept in ``.replaced``. They are moved there, and back, via ``.moving``. Files that a kill left in
``.moving`` always belong back in the directory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

REPLACED, MOVING = ".replaced", ".moving"


def set_aside(folder: Path, names: Iterable[str]) -> None:
    """Move files of a directory to the backup."""
    moving = folder / MOVING
    moving.mkdir()
    for name in names:
        os.replace(folder / name, moving / name)
    os.replace(moving, folder / REPLACED)


def put_back(folder: Path) -> None:
    """Undo `set_aside`, also an interrupted one."""
    moving, replaced = folder / MOVING, folder / REPLACED
    if replaced.is_dir():
        os.replace(replaced, moving)
    if moving.is_dir():
        for path in moving.iterdir():
            os.replace(path, folder / path.name)
        moving.rmdir()


def drop(folder: Path) -> None:
    """Remove the backup."""
    shutil.rmtree(folder / REPLACED, ignore_errors=True)
