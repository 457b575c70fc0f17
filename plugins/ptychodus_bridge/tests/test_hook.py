"""How Ptychodus comes to know the libraries, and that nothing of it can keep Ptychodus from starting."""

from __future__ import annotations

import logging
import subprocess
import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ptychodus", reason="Ptychodus is not installed")

from bridge_entries import Ptychodus

from ptychopinn_ptychodus import discovery, hook

_PROBE = """
import logging, sys
{before}
from ptychodus.model.core import ModelCore
model = ModelCore(None, log_level=logging.INFO)
print("ENTRIES", *model.processing_core.algorithm_parameter.available_reconstructors())
print("LOADED", *[n for n in ("PyQt5", "torch", "tensorflow", "keras", "lightning_fabric") if n in sys.modules])
"""


def _start(before: str, environment: dict[str, str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", _PROBE.format(before=before)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )


def _line(done: subprocess.CompletedProcess[str], word: str) -> list[str]:
    assert done.returncode == 0, done.stdout + done.stderr
    return next(line for line in done.stdout.splitlines() if line.startswith(word)).split()[1:]


def test_model_core_knows_the_entries(environment: dict[str, str], tmp_path: Path) -> None:
    """[PTY-001] [PTY-005] The composition root has the entries; neither Qt nor a framework is imported."""
    done = _start("", environment, tmp_path)
    assert all(name.startswith("ptychopinn-plugin_") for name in _line(done, "ENTRIES"))
    assert _line(done, "ENTRIES")
    assert _line(done, "LOADED") == []


def test_unsupported_version_starts_unharmed(environment: dict[str, str], tmp_path: Path) -> None:
    """[PTY-003] Another version of Ptychodus: a warning, no entries, and it starts."""
    before = (
        "import importlib.metadata as m; real = m.version\n"
        "m.version = lambda name: '1.9.0' if name == 'ptychodus' else real(name)"
    )
    done = _start(before, environment, tmp_path)
    assert _line(done, "ENTRIES") == []
    assert "Ptychodus 1.9.0 is not supported, 1.6 up to 1.7 are" in done.stdout


@pytest.mark.parametrize(
    "before",
    [
        "import sys; sys.modules['ptychopinn_ptychodus.hook'] = None",
        "import sys; sys.modules['ptychopinn_ptychodus.library'] = None",
        "import ptychopinn.plugins as p\np.discover = lambda: 1 / 0",
        "import ptychopinn_ptychodus.core as c\nc.extended_core = lambda base: 1 / 0",
    ],
    ids=["no hook", "no library", "broken discovery", "broken core"],
)
def test_a_broken_bridge_never_stops_ptychodus(before: str, environment: dict[str, str], tmp_path: Path) -> None:
    """[PTY-004] Whatever is broken in the bridge is told in the log, and Ptychodus starts."""
    done = _start(before, environment, tmp_path)
    assert _line(done, "ENTRIES") == []
    assert "ERROR" in done.stdout


def test_a_broken_library_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """[PTY-004] Libraries that raise, exit, or take a name that is there are left out; the others stay."""

    class Library:
        name = "Good"

    def make(name: str, factory: Any) -> Any:
        return types.SimpleNamespace(name=name, load=lambda: factory)

    def leaves(*_: object) -> None:
        raise SystemExit(3)

    taken = types.SimpleNamespace(name="Pty-Chi")
    under = types.SimpleNamespace(name="a_b")
    found = [
        make("a", lambda *_: 1 / 0),
        make("b", leaves),
        make("c", lambda *_: taken),
        make("d", lambda *_: under),
        make("e", lambda *_: Library()),
        EntryPoint("f", "no_such_module_at_all:x", discovery.GROUP),
    ]
    with caplog.at_level(logging.ERROR):
        libs = discovery.load_libraries(None, False, ["pty-chi"], found)
    assert [library.name for library in libs] == ["Good"]
    for name in "abcdf":
        assert f"'{name}' is left out" in caplog.text


def test_reading_commands_import_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """[PTY-002] Without a composition root in the process nothing is done."""
    monkeypatch.delitem(sys.modules, hook.MODEL_ROOT, raising=False)
    before = set(sys.modules)
    assert hook.install() is False
    assert not {name for name in set(sys.modules) - before if name.startswith("ptychopinn")}


def test_after_import_waits_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[PTY-002] The hook acts right after its module's import and is gone then."""
    (tmp_path / "waited_for.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    finders = list(sys.meta_path)
    seen: list[Any] = []
    hook.after_import("waited_for", seen.append)
    hook.after_import("waited_for", seen.append)
    assert len(sys.meta_path) == len(finders) + 1
    import waited_for  # type: ignore[import-not-found]

    assert seen == [waited_for]
    assert sys.meta_path == finders
    hook.after_import("waited_for", seen.append)
    assert len(seen) == 2
    monkeypatch.delitem(sys.modules, "waited_for")


def test_launcher_serves_a_checkout_elsewhere(environment: dict[str, str], tmp_path: Path) -> None:
    """[PTY-006] With Ptychodus on another path plain start has no entries, the launcher has; options are the same."""
    import shutil

    import ptychodus

    elsewhere = tmp_path / "checkout"
    shutil.copytree(
        Path(ptychodus.__file__).parent, elsewhere / "ptychodus", ignore=shutil.ignore_patterns("__pycache__")
    )
    (elsewhere / "ptychodus/plugins/ptychopinn_bridge.py").unlink()
    environment = {**environment, "PYTHONPATH": str(elsewhere)}
    assert _line(_start("", environment, tmp_path), "ENTRIES") == []
    (tmp_path / "in").mkdir()
    (tmp_path / "in/settings.ini").write_text("[Processing]\nalgorithm = none-such_x\n")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ptychopinn_ptychodus.launcher", "-b", "train", "-i", "in", "-o", "out"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Known are: ptychopinn-plugin_" in done.stdout, done.stdout + done.stderr
    assert done.returncode != 0  # no diffraction.h5: Ptychodus's own code, which differs between releases


def test_launcher_and_plugin_module_together(environment: dict[str, str], tmp_path: Path) -> None:
    """[PTY-006] Where both run, entries and settings groups are made once."""
    before = (
        "import ptychodus.model.core\nfrom ptychopinn_ptychodus.hook import install\nassert install() and install()"
    )
    names = _line(_start(before, environment, tmp_path), "ENTRIES")
    assert len(names) == len(set(names)) > 0


def test_unknown_algorithm_is_loud(ptychodus: Ptychodus, tmp_path: Path) -> None:
    """[PTY-052] An algorithm that does not exist: an error that names the known ones, and exit code 1."""
    from bridge_scans import write_scan_folder

    write_scan_folder(tmp_path / "in")
    (tmp_path / "in/settings.ini").write_text("[Processing]\nalgorithm = ptychopinn-plugin_nope\n")
    done = ptychodus("-b", "train", "-i", "in", "-o", "out")
    assert done.returncode == 1
    assert "There is no algorithm 'ptychopinn-plugin_nope'. Known are: ptychopinn-plugin_" in done.stdout
