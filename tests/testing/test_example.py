"""The backend of docs/writing-a-backend.md passes the kit. Requirements: specs/11-conformance.md."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "numpy_backend"


def example_tests() -> Any:
    spec = importlib.util.spec_from_file_location("numpy_example_tests", EXAMPLE / "tests" / "test_conformance.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What pip would write about the example, so that it is found by its entry point."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    site = tmp_path_factory.mktemp("site")
    folder = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{name} = {value}" for name, value in project["entry-points"]["ptychopinn"].items()]
    (folder / "entry_points.txt").write_text("\n".join(["[ptychopinn]", *lines, ""]))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        yield


class TestExample(example_tests().TestNumpy):  # type: ignore[misc]
    """[CONF-002] Every test of the kit."""
