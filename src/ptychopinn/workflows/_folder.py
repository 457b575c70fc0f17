"""Run directories: what may be written where, and the log that goes into it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ptychopinn.errors import ResourceError, UsageError
from ptychopinn.files import why_unreadable
from ptychopinn.typing import StrPath

MODEL = "wts.h5.zip"
CONFIG = "config.yaml"
HISTORY = "history.csv"
PRODUCT = "reconstruction.h5"
REPORT = "report.html"
LOG = "run.log"
CHECKPOINTS = "checkpoints"
PICTURES = ("amplitude.png", "phase.png", "probe.png", "history.png")
_OURS = frozenset(
    {MODEL, CONFIG, HISTORY, PRODUCT, REPORT, LOG, CHECKPOINTS, "scores.json", "comparison.png", *PICTURES}
)


def prepare_folder(
    output: StrPath, *, overwrite: bool = False, resume: bool = False, ours: frozenset[str] = _OURS
) -> Path:
    """Make an output directory, or make room in one that is there.

    Parameters
    ----------
    output:
        The directory.
    overwrite:
        Remove what an earlier run wrote there, and nothing else.
    resume:
        Leave everything; the directory must hold a run.
    ours:
        Names that may be removed.

    Raises
    ------
    UsageError
        If it is there and neither was asked for, holds files of somebody else, or holds nothing to resume.
    ResourceError
        If it cannot be made.
    """
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; a directory is to be made there.", "Give another --output.")
    there = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if resume:
        if CONFIG not in there:
            raise UsageError(f"{folder} holds no run to resume.", "Check the directory, or leave --resume out.")
        return folder
    if there and not overwrite:
        raise UsageError(
            f"The directory {folder} is there and not empty.",
            "Choose another one, or use --overwrite to replace it or, for a training, --resume to go on with it.",
        )
    if foreign := [name for name in there if name not in ours and not _is_log_folder(folder / name)]:
        raise UsageError(
            f"The directory {folder} holds files that no run wrote: {', '.join(foreign[:5])}.",
            "Choose another directory; --overwrite removes only what a run wrote.",
        )
    try:
        _remove(folder / name for name in there)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"The directory {folder} cannot be made: {error}.", "Choose another one.") from error
    return folder


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def run_folder(
    output: StrPath, *, overwrite: bool = False, resume: bool = False, kept: Iterable[str] = ()
) -> Iterator[Path]:
    """`prepare_folder` with its log; a run that fails before it has something worth keeping leaves nothing behind.

    Parameters
    ----------
    output, overwrite, resume:
        As in `prepare_folder`.
    kept:
        Names of what is worth keeping.
    """
    there = Path(output).is_dir()
    folder = prepare_folder(output, overwrite=overwrite, resume=resume)
    try:
        with logged_to(folder):
            yield folder
    except BaseException:
        if not resume and not any((folder / name).exists() for name in kept):
            _remove(path for path in folder.iterdir() if path.name in _OURS or _is_log_folder(path))
            if not there and not any(folder.iterdir()):
                folder.rmdir()
        raise


def _is_log_folder(path: Path) -> bool:
    return (path.is_dir() and path.name in {"csv", "tensorboard"}) or path.name in {"mlflow.db", "mlruns"}


@contextmanager
def logged_to(folder: Path) -> Iterator[None]:
    """Write the log of this software to ``run.log`` in a folder for a while."""
    logger = logging.getLogger("ptychopinn")
    handler = logging.FileHandler(folder / LOG, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(logging.INFO)
    before = logger.level
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.close()


def model_path(path: StrPath) -> Path:
    """The model archive that a run directory holds, or the path itself when it is a file.

    Raises
    ------
    UsageError
        If there is none.
    """
    given = Path(path)
    found = given / MODEL if given.is_dir() else given
    if (why := why_unreadable(found)) is not None:
        raise UsageError(f"The model {found} {why}.", "Give a run directory of 'train', or a model archive.")
    return found
