"""Run directories: what may be written where, and the log that goes into it."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ptychopinn.atomic import remove_leftovers, translate_write_error
from ptychopinn.errors import ResourceError, UsageError
from ptychopinn.files import why_unreadable
from ptychopinn.typing import StrPath
from ptychopinn.workflows import _replaced
from ptychopinn.workflows._lock import LOCK, locked

MODEL = "wts.h5.zip"
CONFIG = "config.yaml"
SCAN = "scan.json"
HISTORY = "history.csv"
PRODUCT = "reconstruction.h5"
REPORT = "report.html"
LOG = "run.log"
CHECKPOINTS = "checkpoints"
PICTURES = ("amplitude.png", "phase.png", "probe.png", "history.png")
_OURS = frozenset(
    {MODEL, CONFIG, SCAN, HISTORY, PRODUCT, REPORT, LOG, CHECKPOINTS, "scores.json", "comparison.png", *PICTURES}
)
_log = logging.getLogger(__name__)
_PASSING = frozenset({LOCK, _replaced.REPLACED, _replaced.MOVING})  # of a run under way, or of one that was killed


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
    there = _to_replace(folder, overwrite=overwrite, resume=resume, ours=ours)
    try:
        _remove(folder / name for name in there)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from error
    return folder


def _unusable(folder: Path, error: OSError) -> ResourceError:
    return ResourceError(f"The directory {folder} cannot be made: {error}.", "Choose another one.")


def _to_replace(folder: Path, *, overwrite: bool, resume: bool, ours: frozenset[str] = _OURS) -> list[str]:
    """Names of what an earlier run left in a directory and a new one replaces; raises as `prepare_folder` does."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; a directory is to be made there.", "Give another --output.")
    found = [path for path in folder.iterdir() if path.name not in _PASSING] if folder.is_dir() else []
    there = sorted(path.name for path in found)
    if resume:
        if CONFIG not in there:
            raise UsageError(f"{folder} holds no run to resume.", "Check the directory, or leave --resume out.")
        checkpoints = folder / CHECKPOINTS
        found += checkpoints.iterdir() if checkpoints.is_dir() else ()
        if links := sorted(path.name for path in found if path.is_symlink()):
            raise UsageError(
                f"In the directory {folder} {', '.join(links[:5])} leads elsewhere; a resumed run would write there.",
                "Put the files themselves into the directory.",
            )
        return []
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
    return there


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
    """`prepare_folder` for a run: locked against a second one, with its log, and with nothing lost if it fails.

    A run that fails before it has something worth keeping leaves nothing behind; what it was to replace is there again.
    That is so, too, after a kill, as soon as the next run begins there.

    Parameters
    ----------
    output, overwrite, resume:
        As in `prepare_folder`.
    kept:
        Names of what is worth keeping.

    Raises
    ------
    UsageError, ResourceError
        As `prepare_folder`, and if another run holds the directory.
    """
    folder, kept = Path(output), tuple(kept)
    if made := not folder.is_dir():
        _to_replace(folder, overwrite=overwrite, resume=resume)  # before anything is made
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(folder, error) from error
    try:
        with locked(folder):
            _settle(folder)
            if there := _to_replace(folder, overwrite=overwrite, resume=resume):
                _replaced.set_aside(folder, there)
            try:
                with logged_to(folder):
                    yield folder
            except BaseException:
                if resume or _holds_any(folder, kept):
                    _replaced.drop(folder)
                else:
                    _clear(folder)
                    _replaced.put_back(folder)
                raise
            _replaced.drop(folder)
    except OSError as error:
        if (told := translate_write_error(error, error.filename or folder)) is None:
            raise
        raise told from error
    finally:
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _settle(folder: Path) -> None:
    """Bring a directory into order that a killed run left: its results stay, or those that it was to replace."""
    remove_leftovers(folder)
    if (folder / CHECKPOINTS).is_dir():
        remove_leftovers(folder / CHECKPOINTS)
    if (folder / _replaced.REPLACED).is_dir():
        if _holds_any(folder, (MODEL, CHECKPOINTS, PRODUCT)):
            _replaced.drop(folder)
            return
        _clear(folder)
    _replaced.put_back(folder)


def _holds_any(folder: Path, names: Iterable[str]) -> bool:
    paths = (folder / name for name in names)
    return any(any(path.iterdir()) if path.is_dir() else path.exists() for path in paths)


def _clear(folder: Path) -> None:
    _remove(path for path in folder.iterdir() if path.name in _OURS or _is_log_folder(path))


def _is_log_folder(path: Path) -> bool:
    return (path.is_dir() and path.name in {"csv", "tensorboard"}) or path.name in {"mlflow.db", "mlruns"}


class _RunLog(logging.FileHandler):
    """A log on a disk that may be full: what is not written is told once, not in a traceback a line."""

    failure: OSError | None = None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base's name
        """Note what went wrong."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif self.failure is None:
            self.failure = error

    def close(self) -> None:
        """Close the file; what is still to be written may fail, too."""
        try:
            super().close()
        except OSError as error:
            self.failure = error


@contextmanager
def logged_to(folder: Path) -> Iterator[None]:
    """Write the log of this software to ``run.log`` in a folder for a while."""
    logger = logging.getLogger("ptychopinn")
    handler = _RunLog(folder / LOG, encoding="utf-8")
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
        if handler.failure is not None:
            _log.warning("%s is not complete: %s.", folder / LOG, handler.failure)


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
