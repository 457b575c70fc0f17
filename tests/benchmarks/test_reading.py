"""The benchmark of reading, in its smallest form."""

from __future__ import annotations

import pytest
import reading


def test_each_file_is_a_line_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    reading.main(["--patterns", "16", "--size", "32", "--repeats", "1"])
    lines = capsys.readouterr().out.splitlines()
    for dtype in ("uint16", "float32"):
        assert sum(f"HDF5, gzip, {dtype}" in line or f"NPZ, {dtype}" in line for line in lines) == 2
