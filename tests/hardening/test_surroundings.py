"""Commands in surroundings that fail: nothing hangs, no result is lost, no traceback is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ptychopinn.product import read_product

_MAIN = """
import sys
from importlib.metadata import EntryPoint
from ptychopinn import plugins
from ptychopinn.cli import main
entries = [EntryPoint("numpy", "numpy_backend", plugins.GROUP)]
plugins.entry_points = lambda group: entries
sys.exit(main(sys.argv[1:]))
"""
LIMIT_S = 120.0


@dataclass(frozen=True)
class Fault:
    """What is wrong around a command.

    Attributes
    ----------
    shell:
        Redirections of a shell.
    env:
        Changed variables; FOLDER stands for a folder of the test.
    prepare:
        Makes what the fault needs in that folder.
    code:
        Exit code of the command.
    """

    shell: str = ""
    env: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], object] = lambda folder: None
    code: int = 0


def _deep(folder: Path) -> None:
    (folder / ("deep" * 30) / ("er" * 20)).mkdir(parents=True)


FAULTS = {
    "the log is full": Fault("2>/dev/full"),
    "the log is closed": Fault("2>&-"),
    "the log has no reader": Fault("2> >(exec true)"),
    "the output is full": Fault(">/dev/full", code=4),
    "the output is closed": Fault(">&-"),
    "both are closed": Fault(">&- 2>&-"),
    "the input is closed": Fault("<&-"),
    "the encoding is ASCII": Fault(env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii:strict"}),
    "TMPDIR is too long": Fault(env={"TMPDIR": f"FOLDER/{'deep' * 30}/{'er' * 20}"}, prepare=_deep),
    "TMPDIR is missing": Fault(env={"TMPDIR": "FOLDER/missing"}),
    "the home is missing": Fault(env={"HOME": "FOLDER/missing", "MPLCONFIGDIR": "", "XDG_CONFIG_HOME": ""}),
    "a notebook started it": Fault(env={"MPLBACKEND": "module://of_a_notebook.inline", "JPY_PARENT_PID": "1"}),
    "Matplotlib uses TeX": Fault(
        env={"MATPLOTLIBRC": "FOLDER/rc"}, prepare=lambda folder: (folder / "rc").write_text("text.usetex: True\n")
    ),
    "the settings of Matplotlib are damaged": Fault(
        env={"MATPLOTLIBRC": "FOLDER/rc"},
        prepare=lambda folder: (folder / "rc").write_text("image.cmap: none such\n{\n"),
    ),
    "the terminal has no width": Fault(env={"COLUMNS": "0", "TERM": "dumb"}),
    "a scheduler granted a core": Fault(env={"SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}),
}
QUICK = ("the log is full", "both are closed", "the output is full", "a notebook started it", "the encoding is ASCII")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, scan: Path) -> Path:
    """A folder whose name is not ASCII, with a scan."""
    made = tmp_path_factory.mktemp("µ")
    (made / "scan.npz").write_bytes(scan.read_bytes())
    return made


def run(folder: Path, fault: Fault, *arguments: str) -> subprocess.CompletedProcess[str]:
    fault.prepare(folder)
    command = " ".join([f'"{sys.executable}"', "-c", '"$MAIN"', *arguments, fault.shell])
    search = os.pathsep.join(path for path in sys.path if path)
    env = os.environ | {"MAIN": _MAIN, "PYTHONPATH": search, "PYTHONUTF8": "0"}
    env |= {variable: value.replace("FOLDER", str(folder)) for variable, value in fault.env.items()}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=env, capture_output=True, timeout=LIMIT_S, text=True, errors="replace"
    )


@pytest.mark.parametrize("name", FAULTS)
def test_a_training_keeps_its_result(name: str, folder: Path, long: bool, figure: Callable[[str], None]) -> None:
    """[RUN-004] [RUN-005] [RUN-050] Its exit code is that of its work."""
    if not long and name not in QUICK:
        pytest.skip("in the long form only")
    fault, home = FAULTS[name], "_".join(name.split())
    done = run(folder, fault, "train", "scan.npz", "-o", home, "--nepochs", "1", "--probe-refinement", "0")
    assert done.returncode == fault.code, done.stderr
    assert "Traceback" not in done.stderr
    assert read_product(folder / home / "reconstruction.h5").object.size > 0
    assert {"wts.h5.zip", "history.csv", "phase.png", "report.html"} <= {p.name for p in (folder / home).iterdir()}
    figure(f"{name}: the training kept its result")
