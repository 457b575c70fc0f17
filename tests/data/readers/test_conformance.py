"""The readers of the core, and one of a plugin, against the kit: specs/11-conformance.md."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import scan_formats

from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.io import read_scan
from ptychopinn.data.open_scan import open_scan
from ptychopinn.data.raw_scan import RawScan
from ptychopinn.data.readers import find
from ptychopinn.data.readers.find import CORE_READERS
from ptychopinn.data.readers.spec import ReaderSpec
from ptychopinn.errors import ConfigError, DataError
from ptychopinn.hookspecs import hookimpl
from ptychopinn.plugins import discover
from ptychopinn.testing import ReaderConformance

_SPECS = {reader.name: reader for reader in CORE_READERS}


class OfTheCore(ReaderConformance):
    """One format; the name of the subclass' attribute ``form`` says which."""

    form: ClassVar[str]

    def write(self, folder: Path) -> Path:
        name, write = scan_formats.FORMATS[self.form]
        return write(folder / name, scan_formats.example())


class TestCxi(OfTheCore):
    reader, form = _SPECS["cxi"], "cxi"


class TestNexus(OfTheCore):
    reader, form = _SPECS["nexus"], "nexus"


class TestPtypy(OfTheCore):
    reader, form = _SPECS["ptypy"], "ptypy"


class TestTraining(OfTheCore):
    reader, form = _SPECS["ptychodus-training"], "ptychodus-training"


class TestPair(OfTheCore):
    reader, form = _SPECS["ptychodus"], "ptychodus"


class TestPy4dstem(OfTheCore):
    reader, form = _SPECS["py4dstem"], "py4dstem"


class TestFoldSlice(OfTheCore):
    reader, form = _SPECS["fold-slice"], "fold-slice"


class TestMatlab5(OfTheCore):
    reader, form = _SPECS["matlab"], "matlab5"


class TestMatlab73(OfTheCore):
    reader, form = _SPECS["matlab"], "matlab73"


class TestZarr(OfTheCore):
    """In a zip file; the kit knows no scans that are folders."""

    reader, form = _SPECS["zarr"], "zarr-zip"


class TestPtychofm(OfTheCore):
    reader, form = _SPECS["ptychofm"], "ptychofm"


class TestPtychonn(OfTheCore):
    reader, form = _SPECS["ptychonn"], "ptychonn"


MAGIC = "a scan in text"


def sniff_text(path: Path) -> bool:
    return path.is_file() and path.read_bytes().startswith(MAGIC.encode())


def read_text(path: Path) -> RawScan:
    rows = np.loadtxt(path.read_text(errors="replace").splitlines()[1:], ndmin=2)
    return RawScan(np.full((len(rows), 32, 32), 5, np.uint16) + np.eye(32, dtype=np.uint16), rows)


TEXT = ReaderSpec("text", "positions in text", (".txt",), sniff_text, read_text)


def text_scan(path: Path) -> Path:
    path.write_text(f"{MAGIC}\n0 0\n0 3\n3 0\n")
    return path


def plugin(readers: Iterable[object], name: str = "text_plugin") -> EntryPoint:
    module = types.ModuleType(name)
    module.ptychopinn_readers = hookimpl(specname="ptychopinn_readers")(lambda: list(readers))  # type: ignore[attr-defined]
    sys.modules[name] = module
    return EntryPoint("text", name, "ptychopinn")


class TestPlugin(ReaderConformance):
    """[PLUG-012] [READ-001] A reader of a plugin."""

    reader = TEXT
    entry_point = "text_plugin"

    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        plugin([TEXT])

    def write(self, folder: Path) -> Path:
        return text_scan(folder / "scan.txt")


def test_a_plugin_reads_what_the_core_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[PLUG-012] Through read_scan, as every command."""
    path = text_scan(tmp_path / "scan.txt")
    with pytest.raises(DataError):
        read_scan(path, probe="mean")
    monkeypatch.setattr(find, "entry_points", lambda group: [plugin([TEXT])])
    data = read_scan(path, probe="mean")
    np.testing.assert_array_equal(data.positions, [[0, 0], [0, 3], [3, 0]])
    assert open_scan(path, ReadOptions(probe="mean")).notes[0] == ("Read as positions in text (reader 'text').")


def test_a_named_reader_reads_a_file_that_another_one_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[READ-005]"""
    path = text_scan(tmp_path / "scan.txt")
    first = ReaderSpec("first", "takes everything", (".txt",), lambda path: True, lambda path: 1 / 0)  # type: ignore[arg-type]
    monkeypatch.setattr(find, "entry_points", lambda group: [plugin([first, TEXT])])
    with pytest.raises(DataError, match="ZeroDivisionError"):
        read_scan(path, probe="mean")
    assert len(read_scan(path, probe="mean", reader="text")) == 3
    with pytest.raises(ConfigError, match="no reader 'fourth'"):
        read_scan(path, probe="mean", reader="fourth")
    with pytest.raises(DataError, match="is not there"):
        read_scan(tmp_path / "gone.txt", probe="mean", reader="text")


def test_readers_are_listed_with_their_distribution() -> None:
    """[PLUG-012]"""
    registry = discover([plugin([TEXT])])
    assert registry.readers["text"] is TEXT
    assert set(_SPECS) < set(registry.readers)
    assert discover([plugin(["no reader"])]).broken[0].reason.startswith("The hook returned 'no reader'")


def test_a_broken_plugin_does_not_keep_files_from_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[PLUG-012]"""
    gone = EntryPoint("gone", "there_is_no_such_module", "ptychopinn")
    monkeypatch.setattr(find, "entry_points", lambda group: [gone, plugin([TEXT])])
    assert len(read_scan(text_scan(tmp_path / "scan.txt"), probe="mean")) == 3
    assert "The plugin gone cannot be asked for readers" in caplog.text
