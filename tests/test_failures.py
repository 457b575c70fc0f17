"""Whatever is raised as an error to read. Requirements: specs/16-hardening.md."""

from __future__ import annotations

import errno

import pytest

from ptychopinn.errors import DataError, ResourceError
from ptychopinn.failures import explained, memory_explained

OUT_OF_MEMORY = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory", "run"),
    RuntimeError("can't start new thread"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_memory_that_ran_out_is_said_to_have(error: Exception) -> None:
    """[HARD-021] Whoever notices it: Python, the system, or a framework."""
    found = explained(error)
    assert isinstance(found, ResourceError)
    assert found.exit_code == 4
    assert "Memory ran out" in found.problem
    with pytest.raises(ResourceError, match="Memory ran out"), memory_explained():
        raise error


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "No such file", "scan"), RuntimeError("shapes"), KeyError("a")]
)
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)), memory_explained():
        raise error
    assert not isinstance(explained(error), ResourceError)


def test_an_error_of_ours_is_itself() -> None:
    error = DataError("no patterns", "give some")
    assert explained(error) is error
