"""What a release needs agrees: versions, the changelog, the recipe for conda, the workflow, the citation."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="not a checkout")
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


@pytest.fixture(scope="module")
def release_notes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release_notes", ROOT / ".ci" / "release_notes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def project(folder: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def test_distributions_the_recipe_and_the_citation_have_one_version(release_notes: ModuleType) -> None:
    found = {
        **release_notes.versions(),
        "recipe": yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())["context"]["version"],
        "citation": yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"],
    }
    assert len(found) == 8
    assert set(found.values()) == {project(".")["version"]}, found


@pytest.mark.parametrize(("tag", "said"), [("v9.9.9", "not 9.9.9"), ("v0.1.0", "no part '## 0.1.0'")])
def test_a_tag_that_does_not_fit_is_refused(
    release_notes: ModuleType, capsys: pytest.CaptureFixture[str], tag: str, said: str
) -> None:
    assert release_notes.main(tag) == 1
    assert said in capsys.readouterr().out


def test_notes_are_the_part_of_the_version_alone(release_notes: ModuleType) -> None:
    changelog = "# Changelog\n\n## Unreleased\n\n- C\n\n## 0.2.0 (2027-01-01)\n\n- B\n\n## 0.2\n\n- A\n"
    assert release_notes.notes(changelog, "0.2.0") == "- B"
    assert release_notes.notes(changelog, "0.3.0") == ""


@pytest.mark.parametrize("folder", [".", "plugins/torch_backend", "models"])
def test_the_recipe_needs_what_the_distribution_needs(folder: str) -> None:
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())
    (output,) = [one for one in recipe["outputs"] if one["package"]["name"] == project(folder)["name"]]
    wanted = {f"python {project(folder)['requires-python']}"}
    for dependency in project(folder)["dependencies"]:
        name, bounds = re.fullmatch(r"([\w-]+)(.*)", dependency).groups()  # type: ignore[union-attr]
        wanted.add(f"{CONDA_NAMES.get(name, name)} {bounds}")
    assert set(output["requirements"]["run"]) == wanted


def test_the_workflow_runs_the_session_and_publishes_last() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    jobs = workflow["jobs"]
    assert "nox -s release" in [step.get("run") for step in jobs["build"]["steps"]]
    assert [jobs[name]["needs"] for name in ("attest", "publish", "announce")] == ["build", "attest", "publish"]
    assert workflow["permissions"] == {"contents": "read"}


def test_every_distribution_claims_the_pythons_that_a_release_is_tried_with() -> None:
    """The session `release` installs every distribution into each Python of the core's classifiers, and runs them."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    (setup,) = [step for step in workflow["jobs"]["build"]["steps"] if "setup-python" in step.get("uses", "")]
    tried = set(setup["with"]["python-version"].split())
    claimed = {
        path.parent.name: {one.rpartition(" ")[2] for one in project(str(path.parent))["classifiers"] if "3." in one}
        for path in (ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml"), ROOT / "models/pyproject.toml")
    }
    assert len(claimed) == 6
    assert {name: versions for name, versions in claimed.items() if versions != tried} == {}
