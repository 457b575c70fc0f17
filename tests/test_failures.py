"""Whatever is raised as an error to read. Requirements: specs/16-hardening.md."""

from __future__ import annotations

import errno

import pytest

from ptychopinn.errors import DataError, ResourceError
from ptychopinn.failures import explained, is_out_of_memory, memory_explained, retry_smaller

OUT_OF_MEMORY = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory", "run"),
    RuntimeError("can't start new thread"),
    ImportError("libscipy_openblas.so: failed to map segment from shared object"),
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
    "error", [OSError("could not get source code"), SystemError("error return without exception set")]
)
def test_a_memory_error_that_was_swallowed_is_known_under_a_limit(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[HARD-023] Without a limit something else is wrong."""
    for limit, memory in ((2**30, True), (None, False)):
        monkeypatch.setattr("ptychopinn.failures.address_space_limit", lambda limit=limit: limit)
        assert is_out_of_memory(error) is memory


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "No such file", "scan"), RuntimeError("shapes"), KeyError("a")]
)
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)), memory_explained():
        raise error
    assert not isinstance(explained(error), ResourceError)


def test_a_package_that_is_not_there_is_no_defect() -> None:
    """[CLI-011]"""
    found = explained(ModuleNotFoundError("No module named 'h5py'"))
    assert (found.exit_code, found.problem) == (
        1,
        "A package that is needed cannot be imported: No module named 'h5py'.",
    )


def test_an_error_of_ours_is_itself() -> None:
    error = DataError("no patterns", "give some")
    assert explained(error) is error


class FullError(Exception):
    """What some framework raises when its memory is full."""


def is_full(error: BaseException) -> bool:
    return isinstance(error, FullError) or is_out_of_memory(error)


def test_a_frameworks_own_words_are_translated_too() -> None:
    """[HARD-023] And the place is named."""
    with (
        pytest.raises(ResourceError, match=r"Memory ran out on cuda:1 \(no room\)\."),
        memory_explained(is_full, "cuda:1"),
    ):
        raise FullError("no room")
    with pytest.raises(FullError), memory_explained():
        raise FullError
    told = ResourceError("allocate memory", "do not")
    with pytest.raises(ResourceError) as caught, memory_explained(is_full):
        raise told
    assert caught.value is told


def test_work_that_does_not_fit_is_tried_again_when_it_is_smaller() -> None:
    """[HARD-023] Until nothing can be made smaller; other errors pass at once."""
    sizes, size = [], 8

    def compute() -> int:
        sizes.append(size)
        if size > 3:
            raise FullError if size > 4 else MemoryError
        return size

    def shrink(error: Exception) -> None:
        nonlocal size
        if size == 1:
            raise ResourceError("too large", "") from error
        size //= 2

    assert retry_smaller(compute, shrink, is_full) == 2
    assert sizes == [8, 4, 2]

    def never() -> None:
        raise MemoryError

    with pytest.raises(ResourceError, match="too large"):
        retry_smaller(never, shrink, is_full)
    with pytest.raises(ZeroDivisionError):
        retry_smaller(lambda: 1 // 0, shrink, is_full)
