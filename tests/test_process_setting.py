"""Blocks of several threads that change one setting of the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ptychopinn.process_setting import ProcessSetting


class Switch:
    """A setting that was on before."""

    def __init__(self) -> None:
        self.is_on = True
        self.saves = 0

    def save(self) -> Callable[[], None]:
        self.saves += 1
        before = self.is_on
        return lambda: self(before)

    def __call__(self, on: bool) -> None:
        self.is_on = on


def test_it_is_on_while_any_thread_needs_it_and_put_back_last() -> None:
    """[RUN-061] The first block ends first: what the second one needs stays, and what was before comes after both."""
    switch = Switch()
    setting = ProcessSetting(switch.save, switch)
    first = setting.block(on=True)
    first.__enter__()
    seen = []
    began, ended = threading.Event(), threading.Event()

    def other() -> None:
        with setting.block(on=False):
            began.set()
            assert ended.wait(10)
            seen.append(switch.is_on)

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(other)
        assert began.wait(10)
        seen.append(switch.is_on)  # this thread needs it
        first.__exit__(None, None, None)
        ended.set()
        work.result()
    assert (seen, switch.is_on, switch.saves) == ([True, False], True, 1)


def test_the_innermost_block_of_a_thread_decides() -> None:
    switch = Switch()
    setting = ProcessSetting(switch.save, switch)
    with setting.block(on=True):
        with pytest.raises(KeyError), setting.block(on=False):
            assert not switch.is_on
            raise KeyError
        assert switch.is_on
    assert switch.is_on
    with setting.block(on=False):
        assert not switch.is_on
    assert (switch.is_on, switch.saves) == (True, 2)
