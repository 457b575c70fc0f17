"""What the tests of the bridge share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for bridge_entries and bridge_scans, which the GUI driver uses as well

from bridge_entries import Ptychodus, missing_packages, usable_entries  # noqa: E402 - found there


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that take an ``entry`` once for every backend, with ``any_entry`` for each of its model types too."""
    found = usable_entries()
    for fixture, chosen in {"entry": [e for e in found if e.model_type == "pinn"], "any_entry": found}.items():
        if fixture in metafunc.fixturenames:
            unable = pytest.param(None, marks=pytest.mark.skip(reason="no backend of ptychopinn can be used here"))
            metafunc.parametrize(fixture, chosen or [unable], ids=[e.name for e in chosen] or ["none"])


@pytest.fixture(scope="session")
def qt() -> None:
    """Skips where Qt's system libraries are missing; whatever else keeps a window from opening is a failure."""
    if missing := missing_packages():
        pytest.skip(f"Qt lacks system libraries here; Debian has them in {' '.join(missing)}")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the measured scan and its reference; they are not part of the project."""
    folder = HERE.parents[2] / "../shared/data"
    if not (folder / "siemens-star.npz").is_file():
        pytest.skip(f"the measured scan is not there: {folder.resolve()}")
    return folder.resolve()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """For Ptychodus: a home of its own, no window, one thread."""
    home = tmp_path / "home"
    home.mkdir()
    return {
        **os.environ,
        "HOME": str(home),
        "QT_QPA_PLATFORM": "offscreen",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "PYTHONWARNINGS": "ignore",
    }


@pytest.fixture
def ptychodus(environment: dict[str, str], tmp_path: Path) -> Ptychodus:
    """Runs the released program, away from the sources."""

    def run(*arguments: object, limit_s: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "ptychodus", *map(str, arguments)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=limit_s,
        )

    return run
