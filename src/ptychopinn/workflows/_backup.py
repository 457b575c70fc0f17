"""An earlier run set aside until the new one has something worth keeping, so that no refusal and no kill costs both.

The files wait in ``.replaced``. They get there, and back, by way of ``.moving``: what a kill leaves in that one belongs
back into the directory, whatever was going on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

REPLACED, MOVING = ".replaced", ".moving"


def set_aside(folder: Path, names: Iterable[str]) -> None:
    """Put files of a directory aside."""
    moving = folder / MOVING
    moving.mkdir()
    for name in names:
        os.replace(folder / name, moving / name)
    os.replace(moving, folder / REPLACED)


def put_back(folder: Path) -> None:
    """Undo `set_aside`, also one that was cut short."""
    moving, replaced = folder / MOVING, folder / REPLACED
    if replaced.is_dir():
        os.replace(replaced, moving)
    if moving.is_dir():
        for path in moving.iterdir():
            os.replace(path, folder / path.name)
        moving.rmdir()


def drop(folder: Path) -> None:
    """Remove what was set aside."""
    shutil.rmtree(folder / REPLACED, ignore_errors=True)
