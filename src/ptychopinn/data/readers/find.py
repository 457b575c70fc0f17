"""Find the reader of a file: those of the core and of plugins."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pluggy

from ptychopinn.data.raw_scan import RawScan
from ptychopinn.data.readers import cxi, matlab, nexus, ptychodus, ptychonn, ptypy, py4dstem, spec, zarr4d
from ptychopinn.data.readers.spec import ReaderSpec
from ptychopinn.errors import ConfigError, DataError, PtychoPinnError
from ptychopinn.path_checks import why_unreadable

_GROUP = "ptychopinn"
_log = logging.getLogger(__name__)

CORE_READERS: tuple[ReaderSpec, ...] = (
    cxi.READER,
    nexus.READER,
    ptypy.READER,
    ptychodus.TRAINING_READER,
    ptychodus.PAIR_READER,
    ptychodus.TRAINING_PAIR_READER,
    py4dstem.READER,
    zarr4d.READER,
    matlab.FOLD_SLICE_READER,
    matlab.READER,
    ptychonn.READER,
)


def plugin_readers(found: Iterable[EntryPoint] | None = None) -> list[ReaderSpec]:
    """The readers of installed plugins; a plugin that fails is logged and left out.

    Parameters
    ----------
    found:
        Entry points to use instead of those of the group ``ptychopinn``.
    """
    readers: list[ReaderSpec] = []
    for entry in entry_points(group=_GROUP) if found is None else found:
        manager = pluggy.PluginManager(spec.PROJECT)
        manager.add_hookspecs(spec)
        try:
            manager.register(entry.load(), name=entry.name)
            readers += [reader for returned in manager.hook.ptychopinn_readers() for reader in returned]
        except (Exception, SystemExit) as error:
            # A plugin that is broken must not keep other files from being read; `discover` lists it with its reason.
            _log.warning("The plugin %s cannot be asked for readers: %s", entry.name, error)
    return readers


def read_with(readers: Iterable[ReaderSpec], path: Path) -> RawScan | None:
    """Read a file with the first reader that knows it; those of its suffix are asked first. None: no reader knows it.

    Raises
    ------
    DataError
        From the reader.
    """
    for reader in _candidates(list(readers), path):
        return _noted(reader, read_by(reader, path))
    return None


def read_named(name: str, path: Path) -> RawScan:
    """Read a file with the reader of that name, whether or not it knows the file.

    Raises
    ------
    ConfigError
        If there is none.
    DataError
        From the reader, or if the file is not there.
    """
    readers = {reader.name: reader for reader in (*plugin_readers(), *CORE_READERS)}
    if name not in readers:
        raise ConfigError(f"There is no reader '{name[:50]}'.", f"Name one of {', '.join(sorted(readers))}.")
    if not path.is_dir() and (why := why_unreadable(path)) is not None:
        raise DataError(f"{path} {why}.", "Check the name and the folder.")
    return _noted(readers[name], read_by(readers[name], path))


def _noted(reader: ReaderSpec, raw: RawScan) -> RawScan:
    return replace(raw, notes=(f"Read as {reader.summary} (reader '{reader.name}').", *raw.notes))


def read_by(reader: ReaderSpec, path: Path) -> RawScan:
    """Read a file; whatever a reader raises of a damaged file becomes a `DataError`.

    Raises
    ------
    DataError
        Naming the file.
    """
    try:
        return reader.read(path)
    except DataError as error:
        problem = error.problem if str(path) in error.problem else f"{path}: {error.problem}"
        raise DataError(problem, error.remedy) from error
    except (PtychoPinnError, MemoryError):
        raise
    except Exception as error:  # of h5py, SciPy, NumPy or a plugin, for bytes that nobody thought of
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise MemoryError(str(error)) from error
        raise DataError(
            f"{path} cannot be read as {reader.summary}: {type(error).__name__}: {error!s:.500}.",
            "Copy or write the file again; if it is in order, report this.",
        ) from error


def _candidates(readers: list[ReaderSpec], path: Path) -> Iterator[ReaderSpec]:
    suffix = path.suffix.lower()
    for reader in sorted(readers, key=lambda reader: suffix not in reader.suffixes):
        if knows(reader, path):
            yield reader


def knows(reader: ReaderSpec, path: Path) -> bool:
    """Whether a reader knows a file; an exception is a no."""
    try:
        return bool(reader.sniff(path))
    except Exception:  # a damaged file is nobody's; the error of the last resort says what is wrong with it
        _log.debug("reader %s failed to sniff %s", reader.name, path, exc_info=True)
        return False
