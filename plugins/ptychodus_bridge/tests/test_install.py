"""Installing and uninstalling, in an environment of its own (specs/12-ptychodus.md)."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("ptychodus", reason="Ptychodus is not installed")
if find_spec("hatchling") is None or find_spec("editables") is None:
    pytest.skip("hatchling and editables are not installed: nothing can be built here", allow_module_level=True)

PROJECT = Path(__file__).resolve().parents[1]
OWN = ("ptychopinn_ptychodus", "_ptychopinn_ptychodus", "__editable__")
LOOK = """
import logging, sys
from pathlib import Path
from ptychodus.model.core import ModelCore
model = ModelCore(Path(sys.argv[1]), log_level=logging.INFO)
print("ENTRIES", *model.processing_core.algorithm_parameter.available_reconstructors())
print("GROUPS", *model.settings_registry)
"""


class Environment:
    """A virtual environment with Ptychodus and all that it needs, but without the bridge.

    The packages are links to those of the environment of the tests; Ptychodus, into whose folder the bridge puts a
    file, is a copy.
    """

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False)
        self.python = folder / "bin/python"
        self.site = next((folder / "lib").glob("python*/site-packages"))
        self.settings = folder / "settings.ini"
        self.settings.write_text("")
        for path in {Path(sysconfig.get_path(key)) for key in ("purelib", "platlib")}:
            for item in path.iterdir():
                if item.name == "ptychodus":
                    unwanted = shutil.ignore_patterns("__pycache__", "ptychopinn_bridge.py")
                    shutil.copytree(item, self.site / item.name, ignore=unwanted)
                elif not item.name.startswith(OWN) and item.name != "__pycache__":
                    (self.site / item.name).symlink_to(item)

    def pip(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.python, *arguments]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    def look(self, environment: dict[str, str]) -> tuple[list[str], list[str]]:
        """Entries of the dropdown and groups of settings."""
        done = subprocess.run(
            [self.python, "-P", "-c", LOOK, self.settings],
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=self.settings.parent,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.split()}
        return lines["ENTRIES"], lines["GROUPS"]

    def files(self) -> dict[str, str]:
        """What lies where packages are installed: the names, and for Ptychodus the contents."""
        top = {item.name: "" for item in self.site.iterdir()}
        own = self.site / "ptychodus"
        inside = {str(f.relative_to(own)): hashlib.sha256(f.read_bytes()).hexdigest() for f in own.rglob("*.py")}
        return {**top, **inside, **{script.name: "" for script in self.python.parent.iterdir()}}


@pytest.mark.parametrize("how", [(), ("-e",)], ids=["wheel", "editable"])
def test_installing_adds_and_uninstalling_removes(
    how: tuple[str, ...], tmp_path: Path, environment: dict[str, str]
) -> None:
    """[PTY-001] [PTY-007] A wheel and an editable install both show the entries; uninstalled, all is as before.

    The settings file still names an entry and its group then: Ptychodus starts all the same.
    """
    if not (PROJECT / "pyproject.toml").is_file():
        pytest.skip("the sources of the distribution are not here")
    place = Environment(tmp_path / "venv")
    files, (entries, groups) = place.files(), place.look(environment)
    assert not any("ptychopinn-plugin" in name for name in entries)
    source = tmp_path / "source"  # building leaves nothing in the checkout
    shutil.copytree(PROJECT, source, ignore=shutil.ignore_patterns("__pycache__"))
    place.pip("install", "--no-deps", "--no-build-isolation", *how, source)
    more, groups_then = place.look(environment)
    added = set(more) - set(entries)
    assert added
    assert all(name.startswith("ptychopinn-plugin_") for name in added)
    assert (place.python.parent / "ptychopinn-ptychodus").is_file()
    group = next(name for name in groups_then if name not in groups)
    place.settings.write_text(f"[Processing]\nalgorithm = {min(added)}\n\n[{group}]\nnepochs = 3\n")
    place.pip("uninstall", "--yes", "ptychopinn-ptychodus")
    assert place.files() == files
    assert place.look(environment) == (entries, groups)


def test_proposal_for_ptychodus(tmp_path: Path, environment: dict[str, str]) -> None:
    """[PTY-001] Ptychodus 1.7.0 with the proposed patch finds the libraries by itself, without the plugin module."""
    patch = PROJECT.parents[1] / "docs/ptychodus_upstream.patch"
    git = shutil.which("git")
    if not patch.is_file() or git is None:
        pytest.skip("the patch is not beside the tests, or git is not installed")
    if version("ptychodus") != "1.7.0":
        pytest.skip("the patch is for Ptychodus 1.7.0")
    unwanted = shutil.ignore_patterns("__pycache__", "ptychopinn_bridge.py")
    shutil.copytree(str(files("ptychodus")), tmp_path / "src/ptychodus", ignore=unwanted)
    subprocess.run([git, "apply", patch], cwd=tmp_path, check=True)
    (tmp_path / "settings.ini").write_text("")
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOOK, "settings.ini"],
        env={**environment, "PYTHONPATH": str(tmp_path / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ENTRIES ptychopinn-plugin_" in done.stdout
