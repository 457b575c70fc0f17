"""How long the hardening tests take, and where their figures go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hardening.kit.job_runner import JobRunner

from ptychopinn.config import SimulationConfig
from ptychopinn.data.io import write_scan
from ptychopinn.simulate import simulate_scan

FIGURES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="hardening: thousands of mutations, hundreds of kills")
    parser.addoption("--faults", metavar="FIRST:END", help="hardening: numbers of the faults to inject, by default all")
    parser.addoption(
        "--stream-minutes",
        type=float,
        default=0.0,
        metavar="MINUTES",
        help="hardening: how long the stream of a bad producer lasts, by default as short as it can",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash.get(FIGURES, [])
    if figures:
        terminalreporter.section("hardening")
        for line in figures:
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _limits() -> None:
    """The processes that these tests start have limits of their own."""
    pytest.importorskip("resource", reason="this system has no limits of processes")


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the long form was asked for."""
    return bool(request.config.getoption("--long", default=False))


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a line for the summary."""
    return request.config.stash.setdefault(FIGURES, []).append


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 patterns of 32 x 32, with their true object."""
    path = tmp_path_factory.mktemp("scans") / "scan.npz"
    write_scan(path, simulate_scan(SimulationConfig(N=32, rows=6, cols=6, seed=1)))
    return path


@pytest.fixture(scope="session")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobRunner]:
    """Does jobs that may be killed."""
    pytest.importorskip("ptychopinn_torch", reason="the torch backend is not installed")
    jobs = JobRunner(tmp_path_factory.mktemp("jobs") / "stderr")
    yield jobs
    jobs.close()


@pytest.fixture(scope="session")
def trained(jobs: JobRunner, scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nobody disturbed; do not change it."""
    folder = tmp_path_factory.mktemp("trained")
    ending = jobs.run("train", folder, scan)
    assert ending.status == 0, ending
    return folder / "run"


@pytest.fixture(scope="session")
def seconds(jobs: JobRunner, trained: Path, scan: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long such a training takes."""
    return jobs.run("train", tmp_path_factory.mktemp("timed"), scan).seconds
