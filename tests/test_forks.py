"""Processes that were forked from one that has computed."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from ptychopinn.errors import UsageError
from ptychopinn.forks import check_not_forked

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def in_fork(work: Callable[[], None]) -> str:
    """What a function raises in a fork of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
        except UsageError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_of_a_process_that_has_computed_is_refused() -> None:
    """[RUN-002] Another framework, which has not computed, is not; nor is the parent."""
    check_not_forked("wheels 1.0")
    said = in_fork(lambda: check_not_forked("wheels 1.0"))
    assert f"forked from process {os.getpid()}, in which wheels 1.0 has computed" in said
    assert "spawn" in said
    assert in_fork(lambda: check_not_forked("gears 2.0")) == ""
    check_not_forked("wheels 1.0")
    check_not_forked("gears 2.0")
