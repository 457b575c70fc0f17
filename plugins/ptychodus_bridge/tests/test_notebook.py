"""The notebook of the gallery that drives Ptychodus by its own Python API."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("ptychodus", reason="Ptychodus is not installed")

NOTEBOOK = Path(__file__).resolve().parents[3] / "docs" / "gallery" / "ptychodus.md"
CELL = re.compile(r"^```\{code-cell\}\n(?::tags:[^\n]*\n)?(.*?)^```", re.MULTILINE | re.DOTALL)
CHECK = "assert score(aligned)['phase_ssim'] > 0.5, score(aligned)\n"


@pytest.mark.skipif(version("ptychodus") < "1.7", reason="the notebook uses the API of Ptychodus 1.7")
def test_its_cells_run_and_find_the_object(tmp_path: Path) -> None:
    """[PTY-060] In one process without a window; the product is near the simulated object."""
    cells = CELL.findall(NOTEBOOK.read_text("utf-8"))
    assert len(cells) > 5
    command = [sys.executable, "-c", "import matplotlib; matplotlib.use('Agg')\n" + "\n".join([*cells, CHECK])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
