"""Tests of readers of file formats."""

from __future__ import annotations

import random
import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest

from ptychopinn.data.raw_scan import RawScan
from ptychopinn.data.readers.find import CORE_READERS, knows, plugin_readers, read_by
from ptychopinn.data.readers.spec import ReaderSpec
from ptychopinn.errors import PtychoPinnError

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class ReaderConformance:
    """All requirements of a reader.

    A subclass supplies the reader and a function that writes one of its files::

        class TestMine(ReaderConformance):
            reader = MINE
            entry_point = "my_package.plugin"  # of the group ptychopinn; None for a reader of the core

            def write(self, folder):
                return write_my_format(folder / "scan.mine")
    """

    reader: ClassVar[ReaderSpec]
    entry_point: ClassVar[str | None] = None  # the module of its plugin
    damaged: ClassVar[int] = 40  # how many damaged copies of the file are opened

    def write(self, folder: Path) -> Path:
        """Write a small scan of at least two patterns, and return the path to open."""
        raise NotImplementedError

    def test_its_name_and_suffixes_are_allowed(self) -> None:
        """[CONF-090] [READ-001]"""
        assert _NAME.fullmatch(self.reader.name)
        assert self.reader.summary
        assert self.reader.suffixes
        assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in self.reader.suffixes)

    def test_it_is_found(self) -> None:
        """[CONF-090] [READ-001] By its entry point, or among those of the core."""
        if self.entry_point is None:
            assert self.reader in CORE_READERS
        else:
            assert self.reader in plugin_readers([EntryPoint("mine", self.entry_point, "ptychopinn")])

    def test_it_knows_its_own_files_alone(self, tmp_path: Path) -> None:
        """[CONF-091] [READ-002] Not those of other formats, nothing that is empty or missing, and no folder."""
        assert knows(self.reader, self.write(tmp_path))
        others = tmp_path / "others"
        others.mkdir()
        np.savez(others / "scan.npz", diffraction=np.zeros((2, 32, 32)))
        with h5py.File(others / "scan.h5", "w") as file:
            file["diffraction"] = np.zeros((2, 32, 32))
        (others / "empty").touch()
        (others / "text.txt").write_text("x,y\n1,2\n")
        for path in (*others.iterdir(), others, others / "missing"):
            assert not knows(self.reader, path), path.name

    def test_it_reads_a_scan(self, tmp_path: Path) -> None:
        """[CONF-092] [READ-003] Patterns and positions, the same each time."""
        path = self.write(tmp_path)
        first, second = (read_by(self.reader, path) for _ in range(2))
        assert isinstance(first, RawScan)
        assert len(first.patterns) >= 2
        assert first.positions is not None
        assert np.isfinite(first.positions).all()
        np.testing.assert_array_equal(first.patterns, second.patterns)
        np.testing.assert_array_equal(first.positions, np.asarray(second.positions))

    def test_it_writes_nothing(self, tmp_path: Path) -> None:
        """[CONF-093] [READ-004] [HARD-004]"""
        path = self.write(tmp_path)
        before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.iterdir()}
        read_by(self.reader, path)
        assert before == {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.iterdir()}

    def test_damaged_files_are_read_or_refused_with_a_remedy(self, tmp_path: Path) -> None:
        """[CONF-094] [READ-004] [HARD-001]"""
        path = self.write(tmp_path)
        content = path.read_bytes()
        refusals: list[PtychoPinnError] = []
        for seed in range(self.damaged):
            path.write_bytes(_damaged(random.Random(seed), content))
            try:
                if knows(self.reader, path):
                    read_by(self.reader, path)
            except PtychoPinnError as error:
                refusals.append(error)
        assert all(error.problem and error.remedy and len(str(error)) <= 4000 for error in refusals), refusals
        path.write_bytes(content[: len(content) // 2])
        if knows(self.reader, path):
            with pytest.raises(PtychoPinnError):
                read_by(self.reader, path)


def _damaged(rng: random.Random, content: bytes) -> bytes:
    """A copy with some bits changed, most of them near the start, where formats have their structure."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.choice((rng.randrange(len(data)), rng.randrange(min(len(data), 4096))))] ^= 1 << rng.randrange(8)
    return bytes(data)
