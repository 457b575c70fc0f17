"""What the tests of the bridge share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[2] / "examples/numpy_backend/src/ptychopinn_numpy"
sys.path.insert(0, str(HERE))  # for bridge_entries and bridge_scans, which the GUI driver uses as well

from bridge_entries import Entry, Ptychodus, missing_packages, usable_entries  # noqa: E402 - found there


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
def third_party(tmp_path: Path) -> Path | None:
    """A folder for PYTHONPATH in which a stranger's backend is installed: the example of the documentation."""
    if not EXAMPLE.is_dir():
        return None
    site = tmp_path / "site"
    info = site / "ptychopinn_numpy-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ptychopinn-numpy\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[ptychopinn]\nnumpy = ptychopinn_numpy.plugin\n")
    (site / "ptychopinn_numpy").symlink_to(EXAMPLE)
    return site


@pytest.fixture
def strange_entry(third_party: Path | None) -> Entry:
    """The entry of that backend, for what does not depend on the backend: it needs no framework and starts quickly."""
    if third_party is None:
        pytest.skip("the example backend is not beside the tests")
    return Entry("numpy", "pinn")


@pytest.fixture
def environment(tmp_path: Path, third_party: Path | None) -> dict[str, str]:
    """For Ptychodus: a home of its own, no window, one thread, a third-party backend."""
    home = tmp_path / "home"
    home.mkdir()
    return {
        **os.environ,
        "HOME": str(home),
        "PYTHONPATH": "" if third_party is None else str(third_party),
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
