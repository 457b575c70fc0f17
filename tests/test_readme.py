"""What the README says is so; tests/docs runs its code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ptychopinn
from ptychopinn.cli._app import COMMANDS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def readme() -> str:
    path = ROOT / "README.md"
    if not path.is_file():
        pytest.skip("the README is not beside the tests")
    return path.read_text()


@pytest.fixture(scope="module")
def snippet(readme: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    return block


def test_links_lead_to_files(readme: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", readme)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_command_is_shown_on_its_page_and_every_shown_one_exists(readme: str) -> None:
    page = ROOT / "docs" / "command-line.md"
    if not page.is_file():
        pytest.skip("not a checkout")
    assert set(re.findall(r"^ptychopinn (\w+)", page.read_text("utf-8"), re.MULTILINE)) == set(COMMANDS)
    assert set(re.findall(r"^ptychopinn (\w+)", readme, re.MULTILINE)) <= set(COMMANDS)


def test_the_test_command_is_what_ci_runs(readme: str) -> None:
    script = ROOT / ".ci" / "run"
    if not script.is_file():
        pytest.skip("not a checkout")
    assert "python -m pip install nox && nox;" in script.read_text()
    assert "\npython -m pip install nox && nox\n" in readme


def test_the_snippet_is_short_and_uses_public_names(snippet: str) -> None:
    lines = [line for line in snippet.splitlines() if line.strip()]
    assert len(lines) == 5
    assert set(re.findall(r"ptychopinn\.(\w+)", snippet)) <= set(ptychopinn.__all__)


def test_what_the_page_on_the_architecture_names_is_there() -> None:
    page = ROOT / "docs" / "architecture.md"
    if not page.is_file():
        pytest.skip("not a checkout")
    core = ROOT / "src" / "ptychopinn"
    named = re.findall(r"`([a-z_/]+(?:\.py|/))`", page.read_text())
    assert len(named) > 60
    of_backends = {"network.py", "training.py", "ranks.py"}
    assert [name for name in named if not (core / name).exists() and name not in of_backends] == []
    assert (ROOT / "plugins" / "torch_backend" / "src" / "ptychopinn_torch" / "ranks.py").is_file()
    for backend in ("torch", "tf"):
        for name in ("network.py", "forward.py", "training.py", "reconstructor.py"):
            assert (ROOT / "plugins" / f"{backend}_backend" / "src" / f"ptychopinn_{backend}" / name).is_file()


def test_every_package_of_the_core_is_on_the_page_on_the_architecture() -> None:
    page = ROOT / "docs" / "architecture.md"
    if not page.is_file():
        pytest.skip("not a checkout")
    packages = [folder.parent.name for folder in (ROOT / "src" / "ptychopinn").glob("*/__init__.py")]
    assert [name for name in packages if f"`{name}/" not in page.read_text()] == []


def test_the_picture_at_the_head_has_a_command(readme: str) -> None:
    script = ROOT / "docs" / "figures.py"
    if not script.is_file():
        pytest.skip("not a checkout")
    (name,) = re.findall(r"!\[[^]]+\]\(docs/images/([\w-]+)\.png\)", readme)
    assert f'    "{name}": ' in script.read_text("utf-8")
    assert f"`python docs/figures.py {name}`" in (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
