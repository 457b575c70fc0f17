"""Exit codes, errors, output, interrupts: specs/09-command-line.md."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ptychopinn import errors
from ptychopinn.cli._console import Console
from ptychopinn.cli._progress import PLAIN_SECONDS, PlainProgress, progress_monitor
from ptychopinn.config import ModelConfig
from ptychopinn.monitor import Progress

Cli = Callable[..., tuple[int, str, str]]

TRAIN = ("train", "scan.npz", "-o", "run")


def raising(error: BaseException) -> Callable[..., None]:
    def act(*args: Any, **kwargs: Any) -> None:
        raise error

    return act


def pydantic_error() -> Exception:
    try:
        ModelConfig(N=63)
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.TrainingError("The loss is not finite.", "Lower it."), 1, "The loss is not finite. Lower it."),
        (errors.UsageError("run exists.", "Use --overwrite."), 2, "run exists. Use --overwrite."),
        (errors.DataError("diffraction has\nNaN.", "Mend it."), 3, "diffraction has NaN. Mend it."),
        (errors.ArchiveError("Cut short."), 3, "Cut short."),
        (errors.ResourceError("No CUDA device."), 4, "No CUDA device."),
        (errors.Cancelled("Stopped."), 130, "Stopped."),
        (MemoryError("Unable to allocate 3 TiB"), 4, "Memory ran out (Unable to allocate 3 TiB). Lower --batch-size"),
        (OSError(28, "No space left on device", "a.h5"), 4, "a.h5 could not be written: No space left on device."),
        (FileNotFoundError(2, "No such file", "a.h5"), 1, "No such file: 'a.h5'"),
        (pydantic_error(), 2, "N: N = 63 is not supported"),
        (ZeroDivisionError("division by zero"), 1, "This is a defect, please report it: ZeroDivisionError: division"),
    ],
)
def test_exit_codes_and_paragraphs(cli: Cli, calls: Any, error: Exception, code: int, text: str) -> None:
    """[CLI-010] [CLI-011]"""
    calls.act = raising(error)
    got, out, err = cli(*TRAIN)
    assert (got, out) == (code, "")
    assert err.startswith("ptychopinn: error: ")
    assert text in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("where", [("--debug", *TRAIN), (*TRAIN, "--debug")])
def test_a_traceback_only_with_debug(cli: Cli, calls: Any, where: tuple[str, ...]) -> None:
    """[CLI-011]"""
    calls.act = raising(errors.DataError("Bad."))
    assert "Traceback" not in cli(*TRAIN)[2]
    code, _, err = cli(*where)
    assert code == 3
    assert "Traceback" in err
    assert "ptychopinn: error: Bad." in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("tain",), "invalid choice: 'tain'"),
        (("train",), "required: DATA, -o/--output"),
        (("train", "a.npz", "b.npz", "-o", "run"), "'b.npz' is one too many"),
        ((*TRAIN, "--resume", "--overwrite"), "not allowed with argument --resume"),
        ((*TRAIN, "--measurement", "volts"), "--measurement is volts: input should be 'counts' or 'amplitude'"),
        ((*TRAIN, "--batch-size", "0"), "--batch-size is 0: input should be greater than or equal to 1"),
        ((*TRAIN, "--backend", "jaxx"), "no backend 'jaxx'; installed: tf, torch"),
    ],
)
def test_usage_errors(cli: Cli, calls: Any, arguments: tuple[str, ...], text: str) -> None:
    """[CLI-010] [CLI-011]"""
    code, out, err = cli(*arguments)
    assert code in (1, 2)
    assert code == (1 if "jaxx" in text else 2)
    assert out == ""
    assert text in err
    assert err.count("\n") == 1
    assert calls.made == []


def test_the_version(cli: Cli) -> None:
    """[CLI-010]"""
    from ptychopinn import __version__

    assert cli("--version") == (0, f"ptychopinn {__version__}\n", "")


def test_ctrl_c_without_a_monitor_exits_with_130(cli: Cli, calls: Any) -> None:
    """[CLI-010]"""
    calls.act = raising(KeyboardInterrupt())
    code, out, err = cli("simulate", "-o", "s.npz")
    assert (code, out, err) == (130, "", "Interrupted.\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    """[CLI-012] ptychopinn ... | head"""
    code = "import sys; from ptychopinn.cli import main; sys.exit(main(['plugins', '--json']))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_needed_package_that_is_missing_is_named() -> None:
    """[CLI-011] Also one without which no command can be imported."""
    code = "import sys; sys.modules['pydantic'] = None; from ptychopinn.cli import main; sys.exit(main(['plugins']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("ptychopinn: error: A package that is needed cannot be imported: ")
    assert "pydantic" in done.stderr
    assert done.stderr.count("\n") == 1


def test_json_is_all_there_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """[CLI-012]"""
    console = Console()
    console.say("a note")
    console.json({"a": float("nan"), "b": [1.5, float("inf")], "c": "x", 3: (True, None)})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": None, "b": [1.5, None], "c": "x", "3": [True, None]}
    assert err == "a note\n"


def test_quiet_says_errors_and_results_alone(cli: Cli, calls: Any) -> None:
    """[CLI-012] [CLI-013]"""
    calls.returns["simulate_run"] = "s.npz"
    assert cli("simulate", "-o", "s.npz", "--quiet") == (0, "s.npz\n", "")
    calls.act = raising(errors.DataError("Bad."))
    assert cli("--quiet", "simulate", "-o", "s.npz")[2] == "ptychopinn: error: Bad.\n"


def test_warnings_of_the_log_are_shown(cli: Cli, calls: Any) -> None:
    """[CLI-012]"""
    import logging

    def act(*args: Any, **kwargs: Any) -> None:
        logging.getLogger("ptychopinn.data").warning("the probe was cropped")
        logging.getLogger("ptychopinn.data").debug("a detail")

    calls.act = act
    assert cli("simulate", "-o", "s.npz")[2] == "ptychopinn: warning: the probe was cropped\n"
    assert cli("simulate", "-o", "s.npz", "--quiet")[2] == ""
    assert "a detail" in cli("simulate", "-o", "s.npz", "--debug")[2]
    assert logging.getLogger("ptychopinn").handlers == []


def test_a_warning_is_shown_once_and_also_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """[CLI-012] Runs log their warnings, and return them too."""
    import logging

    for quiet in (False, True):
        console = Console(quiet=quiet)
        with console.logging():
            logging.getLogger("ptychopinn.data").warning("the %s was cropped", "probe")
            console.warn("the probe was cropped")
            console.warn("the object too")
        expected = "ptychopinn: warning: the probe was cropped\nptychopinn: warning: the object too\n"
        assert capsys.readouterr().err == expected


def test_plain_progress_says_a_line_now_and_then() -> None:
    """[CLI-013]"""
    lines: list[str] = []
    now = 0.0
    progress = PlainProgress(lines.append, lambda: now)
    for step in range(1, 31):
        now = float(step)
        progress(Progress("train", step, 30, {"loss": 1 / step}))
    assert lines == ["train 11/30  loss 0.09091", "train 21/30  loss 0.04762", "train 30/30  loss 0.03333"]
    assert PLAIN_SECONDS == 10
    progress(Progress("stitch", 5))
    assert len(lines) == 3


@pytest.mark.parametrize(("quiet", "terminal"), [(False, False), (True, False), (True, True), (False, True)])
def test_progress_on_terminals_and_elsewhere(monkeypatch: pytest.MonkeyPatch, quiet: bool, terminal: bool) -> None:
    """[CLI-013]"""

    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress_monitor(Console(quiet=quiet)) as monitor:
        for step in range(1, 4):
            monitor.report("train", step, 3, {"loss": 0.5})
    text = stream.getvalue()
    if quiet:
        assert text == ""
    elif terminal:
        assert "3/3" in text
        assert "\x1b[" in text
        assert "loss 0.5" in text
    else:
        assert text == "train 3/3  loss 0.5\n"


@pytest.mark.parametrize(
    ("arguments", "flags"), [((), (False, False)), (("--resume",), (True, False)), (("--overwrite",), (False, True))]
)
def test_resume_and_overwrite_are_handed_on(
    cli: Cli, calls: Any, arguments: tuple[str, ...], flags: tuple[bool, bool]
) -> None:
    """[CLI-015]"""
    cli(*TRAIN, *arguments)
    assert (calls.last["resume"], calls.last["overwrite"]) == flags


def test_nothing_is_left_of_the_settings_of_an_earlier_call(cli: Cli, calls: Any) -> None:
    """Two calls in one process are independent."""
    cli(*TRAIN, "--nepochs", "3", "--debug")
    cli(*TRAIN)
    assert calls.last["train"] == {}


def test_the_command_line_runs_as_a_module_and_helps_without_a_command() -> None:
    """[CLI-039]"""
    done = subprocess.run([sys.executable, "-m", "ptychopinn"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: ptychopinn ")
    assert "reconstruct" in done.stdout
    assert not done.stderr
