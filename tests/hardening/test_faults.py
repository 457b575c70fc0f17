"""Commands under faults: none hangs, loses a result, prints a traceback or names another cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hardening.kit.fault_runner import FaultRunner
from hardening.kit.faults import FIRST_WITH_TORCH, draw, lacking

COUNTS = {False: 12, True: FIRST_WITH_TORCH + 50}  # short, long


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each number; those of ``--faults`` go on where an earlier run ended."""
    numbers = metafunc.config.getoption("--faults", default=None)
    count = COUNTS[bool(metafunc.config.getoption("--long", default=False))]
    first, end = map(int, numbers.split(":")) if numbers else (0, count)
    metafunc.parametrize("number", range(first, end))


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, scan: Path) -> FaultRunner:
    """Its folder has a name that is not ASCII."""
    return FaultRunner(tmp_path_factory.mktemp("µ"), scan)


def test_a_command_under_a_fault(number: int, runner: FaultRunner, figure: Callable[[str], None]) -> None:
    """[RUN-001] [RUN-004] [RUN-005] [RUN-031] [RUN-050] [CLI-010] [CLI-011] [CLI-014] [HARD-012]"""
    case = draw(number)
    if why := lacking(case):
        pytest.skip(why)
    ended, complaints = runner.run(case)
    assert complaints == [], (str(case), ended)
    figure(f"fault {case}: {'done' if ended.code == 0 else f'exit code {ended.code}'}")
