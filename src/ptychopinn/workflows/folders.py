"""Create, lock and replace output directories; write their logs."""

from __future__ import annotations

import logging
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from ptychopinn.atomic import remove_leftovers, translate_write_error
from ptychopinn.errors import ResourceError, UsageError
from ptychopinn.path_checks import why_unreadable
from ptychopinn.typing import StrPath
from ptychopinn.workflows import _backup
from ptychopinn.workflows.lock import LOCK, locked

MODEL = "wts.h5.zip"
CONFIG = "config.yaml"
SCAN = "scan.json"
HISTORY = "history.csv"
PRODUCT = "reconstruction.h5"
SIDECAR = "reconstruction.json"
OTHER_PRODUCTS = ("reconstruction.cxi", "reconstruction.nxs")
REPORT = "report.html"
LOG = "run.log"
STORY = "story.txt"
CHECKPOINTS = "checkpoints"
CSV = "csv"
UNCERTAINTY = "uncertainty.png"
PICTURES = ("amplitude.png", "phase.png", UNCERTAINTY, "probe.png", "history.png", "positions.png")
_LOGGER = "ptychopinn"
_log = logging.getLogger(__name__)
_LEVEL = threading.Lock()  # all threads share the level of the logger
_RUNS: ContextVar[tuple[_RunLog, ...]] = ContextVar(
    "runs", default=()
)  # the logs of the runs that this thread works for
_TEMPORARY_NAMES = frozenset({LOCK, _backup.REPLACED, _backup.MOVING})  # of a running or a killed run


@dataclass(frozen=True)
class FolderKind:
    """A kind of output directory."""

    noun: str  # what creates it, in messages
    names: frozenset[str]  # names of files and folders that may be replaced
    folders: frozenset[str] = frozenset()  # names of folders that may be replaced; not of files
    keep: tuple[str, ...] = ()  # names or patterns of results that make a killed run worth keeping
    marker: str = ""  # the file that a run needs to be resumed; empty if runs cannot be resumed
    creates_on_resume: bool = False  # whether resuming in a missing or empty directory starts a new run

    def owns(self, path: Path) -> bool:
        """Whether a path may be replaced."""
        return path.name in self.names or (path.name in self.folders and path.is_dir())


RUN = FolderKind(
    "run",
    frozenset({MODEL, CONFIG, SCAN, HISTORY, REPORT, LOG, STORY, CHECKPOINTS, "mlflow.db", "mlruns"})
    | {PRODUCT, SIDECAR, *OTHER_PRODUCTS, *PICTURES},
    frozenset({CSV, "tensorboard"}),
    (MODEL, CHECKPOINTS, PRODUCT),
    CONFIG,
    creates_on_resume=True,
)


@contextmanager
def output_folder(
    output: StrPath, kind: FolderKind, *, overwrite: bool = False, resume: bool = False, keep: Iterable[str] = ()
) -> Iterator[Path]:
    """Create and lock an output directory.

    If the run fails before it has results worth keeping, its files are removed and the replaced ones are restored.
    After a kill, the next run in the directory does this.

    Parameters
    ----------
    overwrite:
        Replace existing results of that kind, and nothing else.
    resume:
        Keep everything, and continue.
    keep:
        Names or patterns of results that are kept if the run fails.

    Raises
    ------
    UsageError
        If it is not empty and neither ``overwrite`` nor ``resume`` is set, if it has foreign files or nothing to
        resume, or if another run is active there.
    ResourceError
        If it cannot be created or written to.
    """
    folder, keep = Path(output), tuple(keep)
    if made := not folder.is_dir():
        _check(folder, kind, overwrite=overwrite, resume=resume)  # before anything is made
        _make(folder)
    try:
        with locked(folder):
            _remove_all_leftovers(folder, kind)
            _check(folder, kind, overwrite=overwrite, resume=resume, settled=False)
            _recover_after_kill(folder, kind)
            _check(folder, kind, overwrite=overwrite, resume=resume)
            resume = resume and (folder / kind.marker).exists()
            if not resume and (there := _list_files(folder)):
                _backup.set_aside(folder, [path.name for path in there])
            try:
                yield folder
            except BaseException:
                if resume or _holds_any(folder, keep):
                    _backup.drop(folder)
                else:
                    _clear(folder, kind)
                    _backup.put_back(folder)
                raise
            _backup.drop(folder)
    except OSError as error:
        if (translated := translate_write_error(error, error.filename or folder)) is None:
            raise
        raise translated from error
    finally:
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def run_folder(
    output: StrPath, *, overwrite: bool = False, resume: bool = False, keep: Iterable[str] = ()
) -> Iterator[Path]:
    """`output_folder` of a run, with a log file."""
    with output_folder(output, RUN, overwrite=overwrite, resume=resume, keep=keep) as folder, run_log(folder):
        yield folder


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"The directory {folder} cannot be made: {error}.", "Choose another one.") from error


def _remove_all_leftovers(folder: Path, kind: FolderKind) -> None:
    """Remove what killed writers left in a directory and in the folders of its kind inside it."""
    for written in (folder, *(folder / name for name in kind.names | kind.folders)):
        if written.is_dir() and not written.is_symlink():
            remove_leftovers(written)


def _list_files(folder: Path) -> list[Path]:
    """The files in a directory, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.name not in _TEMPORARY_NAMES) if folder.is_dir() else []


def _check(folder: Path, kind: FolderKind, *, overwrite: bool, resume: bool, settled: bool = True) -> None:
    """Refuse a directory. Before `_recover_after_kill` (not ``settled``), only for reasons that it does not remove."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, and the output is a directory.", "Give another --output.")
    found = _list_files(folder)
    if resume:
        homes = (folder,) if settled else (folder, *(folder / name for name in _TEMPORARY_NAMES))
        known = any((home / kind.marker).exists() for home in homes)
        begins = kind.creates_on_resume and not _holds_any(folder, kind.keep) and all(map(kind.owns, found))
        if not known and not begins:
            raise UsageError(f"{folder} holds no {kind.noun} to resume.", "Check the directory, or leave --resume out.")
        checkpoints = folder / CHECKPOINTS
        found += checkpoints.iterdir() if checkpoints.is_dir() else ()
        if links := sorted(path.name for path in found if path.is_symlink()):
            raise UsageError(
                f"In the directory {folder} {', '.join(links[:5])} leads elsewhere; a resumed run would write there.",
                "Put the files themselves into the directory.",
            )
        return
    foreign = [path.name for path in found if not kind.owns(path)]
    if foreign:
        raise UsageError(
            f"The directory {folder} is there and not empty: it holds files that no {kind.noun} wrote: "
            f"{', '.join(foreign[:5])}.",
            f"Choose another directory; --overwrite removes only what a {kind.noun} wrote.",
        )
    if found and settled and not overwrite:
        raise UsageError(
            f"The directory {folder} is there and not empty.",
            "Choose another one, or use --overwrite to replace it or, for a training, --resume to go on with it.",
        )


def _recover_after_kill(folder: Path, kind: FolderKind) -> None:
    """Recover a directory after a kill: keep the results of the killed run, or restore those it was replacing."""
    if (folder / _backup.REPLACED).is_dir():
        if _holds_any(folder, kind.keep):
            _backup.drop(folder)
            return
        _clear(folder, kind)
    _backup.put_back(folder)


def _holds_any(folder: Path, names: Iterable[str]) -> bool:
    paths = (path for name in names for path in folder.glob(name))
    return any(any(path.iterdir()) if path.is_dir() else path.exists() for path in paths)


def _clear(folder: Path, kind: FolderKind) -> None:
    for path in folder.iterdir():
        if kind.owns(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


class _RunLog(logging.FileHandler):
    """The log file of a run. Write errors are reported once, not in a traceback per line.

    Runs in other threads have logs of their own. What a thread logs that belongs to no run goes to all of them.
    """

    failure: OSError | None = None
    level_before = logging.NOTSET  # of the logger

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out what another run logs."""
        runs = _RUNS.get()
        return (not runs or self in runs) and bool(super().filter(record))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base's name
        """Remember the first error."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif self.failure is None:
            self.failure = error

    def close(self) -> None:
        """Close the file; the last write may fail too."""
        try:
            super().close()
        except OSError as error:
            self.failure = error


@contextmanager
def run_log(folder: Path) -> Iterator[None]:
    """Log to ``run.log`` in a folder within the context."""
    handler = _RunLog(folder / LOG, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(logging.INFO)
    token = _RUNS.set((*_RUNS.get(), handler))
    _add(handler)
    try:
        yield
    finally:
        _remove(handler)
        _RUNS.reset(token)
        handler.close()
        if handler.failure is not None:
            _log.warning("%s is not complete: %s.", folder / LOG, handler.failure)


def _add(handler: _RunLog) -> None:
    logger = logging.getLogger(_LOGGER)
    with _LEVEL:
        handler.level_before = logger.level
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
        logger.addHandler(handler)


def _remove(handler: _RunLog) -> None:
    """Remove a log; the last one restores the level of the logger."""
    logger = logging.getLogger(_LOGGER)
    with _LEVEL:
        runs = [other for other in logger.handlers if isinstance(other, _RunLog)]
        logger.removeHandler(handler)
        if runs == [handler]:
            logger.setLevel(handler.level_before)
        elif runs[0] is handler:
            runs[1].level_before = handler.level_before


def model_path(path: StrPath) -> Path:
    """The model archive of a run directory, or the path itself if it is a file. Raises UsageError if there is none."""
    given = Path(path)
    found = given / MODEL if given.is_dir() else given
    if (why := why_unreadable(found)) is not None:
        raise UsageError(f"The model {found} {why}.", "Give a run directory of 'train', or a model archive.")
    return found


def product_file(path: StrPath) -> Path:
    """The product of a run directory, or the path itself if it is none."""
    given = Path(path)
    return given / PRODUCT if (given / PRODUCT).is_file() else given


def refuse_model_folder(archive: Path, output: StrPath) -> None:
    """Refuse an output directory that is the model's. Raises UsageError if the archive lies in the output directory."""
    if archive.resolve().parent == Path(output).resolve():
        raise UsageError(f"{output} is the directory of the model.", "Give another --output.")
