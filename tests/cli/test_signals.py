"""Signals that ask a command to stop: specs/09-command-line.md."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ptychopinn.cli import main
from ptychopinn.cli._console import Console
from ptychopinn.cli._progress import progress_monitor
from ptychopinn.cli._signals import StopSignals
from ptychopinn.errors import Cancelled
from ptychopinn.monitor import Monitor

Cli = Callable[..., tuple[int, str, str]]

if not hasattr(signal, "SIGHUP"):
    pytest.skip("Windows has Ctrl-C alone", allow_module_level=True)
SENT = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP]
TRAIN = ("train", "scan.npz", "-o", "run")


@pytest.fixture(autouse=True)
def _default_handlers() -> Iterator[None]:
    """As a shell starts a program."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SENT}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SENT)
def test_the_first_signal_cancels_and_the_second_interrupts(number: signal.Signals) -> None:
    """[CLI-014]"""
    said: list[str] = []
    stop, monitor = StopSignals(), Monitor()
    with stop.handled(said.append), stop.cancelling(monitor):
        signal.raise_signal(number)
        assert monitor.cancelled
        assert said == [
            f"{number.name}: stopping after this step and keeping what is there. A second signal gives this step up, a "
            "third ends at once."
        ]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is signal.SIG_DFL
    assert stop.exit_code == 128 + number


def test_a_third_signal_ends_at_once() -> None:
    """[CLI-014] As if nobody handled it."""
    code = (
        "import signal\n"
        "from ptychopinn.cli._signals import StopSignals\n"
        "stop = StopSignals()\n"
        "with stop.handled(print):\n"
        "    for _ in range(2):\n"
        "        try:\n            signal.raise_signal(signal.SIGTERM)\n"
        "        except KeyboardInterrupt:\n            print('interrupted', flush=True)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('still there')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "interrupted\ninterrupted\n")


def test_a_limit_of_processor_time_is_one_signal() -> None:
    """[CLI-014] The kernel sends it every second from then on."""
    stop, monitor = StopSignals(), Monitor()
    before = signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    with stop.handled(lambda text: None), stop.cancelling(monitor):
        for _ in range(4):
            signal.raise_signal(signal.SIGXCPU)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    signal.signal(signal.SIGXCPU, before)
    assert (monitor.cancelled, stop.exit_code) == (True, 128 + signal.SIGXCPU)


def test_an_interrupt_in_a_destructor_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    """[CLI-014] Python drops exceptions there."""

    class Ends:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    stop, hook = StopSignals(), sys.unraisablehook
    with stop.handled(lambda text: None), pytest.raises(KeyboardInterrupt):
        Ends()
        for _ in range(200):
            time.sleep(0.02)
    assert stop.exit_code == 130
    assert capsys.readouterr().err == ""
    assert sys.unraisablehook is hook


def test_an_interrupt_of_the_imports_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """[CLI-010] [CLI-011]"""

    class Interrupting:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "ptychopinn.cli._app":
                raise KeyboardInterrupt

    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "ptychopinn.cli._app", raising=False)
    assert main(["plugins"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


@pytest.mark.parametrize("number", SENT)
def test_a_command_that_is_stopped_says_by_what(cli: Cli, calls: Any, number: signal.Signals) -> None:
    """[CLI-010] [CLI-014] Its exit code is 128 + the signal, whether it had a result or not."""

    def stopped(*args: Any, monitor: Monitor, **kwargs: Any) -> None:
        signal.raise_signal(number)
        assert monitor.cancelled
        raise Cancelled("The work was cancelled.")

    calls.act = stopped
    code, _, err = cli(*TRAIN)
    assert code == 128 + number
    assert "The work was cancelled." in err
    calls.act = lambda *args, **kwargs: signal.raise_signal(number)
    assert cli(*TRAIN)[0] == 128 + number


@pytest.mark.usefixtures("toy")
def test_a_signal_before_the_work_starts_ends_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """[CLI-014] There is nothing to keep yet."""
    monkeypatch.setattr("ptychopinn.cli.train.load_settings", lambda *args, **kw: signal.raise_signal(signal.SIGTERM))
    code, _, err = cli(*TRAIN)
    assert (code, err) == (128 + signal.SIGTERM, "Interrupted.\n")


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """[CLI-014] nohup"""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop, monitor = StopSignals(), Monitor()
    with stop.handled(print), stop.cancelling(monitor):
        signal.raise_signal(signal.SIGHUP)
    assert not monitor.cancelled


def test_another_thread_leaves_signals_to_the_main_thread() -> None:
    """[CLI-014]"""
    found: list[Any] = []

    def work() -> None:
        console = Console()
        with console.stop.handled(console.say), progress_monitor(console):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]
