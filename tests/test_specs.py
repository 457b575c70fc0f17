"""The specification and the tests hold each other: every requirement is cited, every citation exists."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENT = re.compile(r"^- \*\*\[([A-Z]{2,6}-\d{3})\]\*\* \S", re.MULTILINE)
CITATION = re.compile(r"\[([A-Z]{2,6}-\d{3})\]")


def requirements() -> Counter[str]:
    """Requirement id to how often it is defined."""
    pages = sorted((ROOT / "specs").glob("*.md"))
    return Counter(id_ for page in pages for id_ in REQUIREMENT.findall(page.read_text()))


def files_with_tests() -> list[Path]:
    folders = [
        ROOT / "tests",
        *sorted((ROOT / "plugins").glob("*/tests")),
        ROOT / "models" / "tests",
        ROOT / "src" / "ptychopinn" / "testing",
    ]
    return [file for folder in folders for file in sorted(folder.rglob("*.py")) if file != Path(__file__)]


def citations() -> dict[str, list[str]]:
    """Cited id to the files that cite it."""
    found: dict[str, list[str]] = {}
    for file in files_with_tests():
        for id_ in CITATION.findall(file.read_text()):
            found.setdefault(id_, []).append(str(file.relative_to(ROOT)))
    return found


@pytest.fixture(scope="module", autouse=True)
def _checkout() -> None:
    if not (ROOT / "specs").is_dir():
        pytest.skip("the specification is not beside the tests")


def test_there_is_a_specification() -> None:
    assert len(requirements()) > 50


def test_no_id_is_defined_twice() -> None:
    assert [id_ for id_, count in requirements().items() if count > 1] == []


def test_every_requirement_is_cited_by_a_test() -> None:
    without = sorted(requirements().keys() - citations().keys())
    assert not without, f"no test cites {', '.join(without)}"


def test_every_cited_requirement_exists() -> None:
    known = requirements()
    strange = {id_: files for id_, files in citations().items() if id_ not in known}
    assert not strange, f"no page defines {strange}"


def test_every_requirement_is_written_as_one() -> None:
    """An id in a page is a requirement, or refers to one."""
    known = requirements()
    for page in (ROOT / "specs").glob("*.md"):
        assert set(CITATION.findall(page.read_text())) <= set(known), page.name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("- **[DATA-001]** A sentence.", ["DATA-001"]),
        ("- **[DATA-001]**", []),
        ("see [DATA-001]", []),
        ("- **[data-1]** A sentence.", []),
    ],
)
def test_what_counts_as_a_requirement(text: str, found: list[str]) -> None:
    assert REQUIREMENT.findall(text) == found
