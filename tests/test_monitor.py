"""Progress and cancellation: specs/07-reconstructor.md."""

import threading
import time

import pytest

from ptychopinn.monitor import NULL_MONITOR, LinkedMonitor, Monitor, Progress, TimeLimit


def test_each_report_reaches_the_listener() -> None:
    """[MON-001]"""
    seen: list[Progress] = []
    monitor = Monitor(seen.append)
    monitor.report("train", 3, 10, {"loss": 0.5})
    monitor.report("predict", 7)
    assert seen == [Progress("train", 3, 10, {"loss": 0.5}), Progress("predict", 7, 0, {})]


def test_figures_of_an_event_do_not_change_afterwards() -> None:
    """[MON-001] The work may go on with the mapping it handed over."""
    seen: list[Progress] = []
    figures = {"loss": 1.0}
    Monitor(seen.append).report("train", 1, 2, figures)
    figures["loss"] = 2.0
    assert seen[0].figures == {"loss": 1.0}


def test_cancelling_from_another_thread_is_seen_and_stays() -> None:
    """[MON-002]"""
    monitor = Monitor()
    assert not monitor.cancelled
    thread = threading.Thread(target=monitor.cancel)
    thread.start()
    thread.join()
    assert monitor.cancelled
    monitor.report("train", 1, 2)
    assert monitor.cancelled


def test_the_shared_monitor_cannot_be_cancelled() -> None:
    """[MON-003]"""
    with pytest.raises(RuntimeError, match="of your own"):
        NULL_MONITOR.cancel()
    assert not NULL_MONITOR.cancelled
    NULL_MONITOR.report("train", 1, 2)


def test_a_time_limit_cancels_the_work_and_not_the_monitor_inside() -> None:
    """[MON-001] [MON-002]"""
    seen: list[Progress] = []
    inner = Monitor(seen.append)
    over, ample, unlimited = (TimeLimit(inner, seconds) for seconds in (0.0, 1e6, None))
    over.report("rounds", 1, 2, {"loss": 0.5})
    assert seen == [Progress("rounds", 1, 2, {"loss": 0.5})]
    assert [one.cancelled for one in (over, ample, unlimited, inner)] == [True, False, False, False]
    assert not over.stopped
    assert over.left <= 0 < ample.left < unlimited.left == float("inf")
    inner.cancel()
    assert all(one.cancelled and one.stopped for one in (over, ample, unlimited))


def test_a_linked_monitor_is_cancelled_with_the_other_and_reports_for_itself() -> None:
    """[MON-002] And the other is not cancelled with it."""
    own: list[Progress] = []
    others: list[Progress] = []
    other = Monitor(others.append)
    first, second = LinkedMonitor(other, own.append), LinkedMonitor(other)
    first.report("train", 1)
    first.cancel()
    assert (len(own), len(others)) == (1, 0)
    assert [one.cancelled for one in (first, second, other)] == [True, False, False]
    other.cancel()
    assert second.cancelled


def test_reports_of_several_threads_come_one_at_a_time() -> None:
    """[MON-001]"""
    inside, most = 0, 0

    def listen(_: Progress) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.002)
        inside -= 1

    monitor = Monitor(listen)
    threads = [threading.Thread(target=lambda: [monitor.report("train", n) for n in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
