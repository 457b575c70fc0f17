"""Check the tag of a release against every version and the changelog, and print the notes: release_notes.py v0.2.0.

Without a tag the versions are compared with each other alone.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECTS = ("pyproject.toml", "plugins/*/pyproject.toml", "models/pyproject.toml")


def versions(root: Path = ROOT) -> dict[str, str]:
    """Name to version of every distribution."""
    found = [tomllib.loads(path.read_text("utf-8"))["project"] for glob in PROJECTS for path in root.glob(glob)]
    return {project["name"]: project["version"] for project in found}


def notes(changelog: str, version: str) -> str:
    """The part of the changelog about a version; empty if there is none."""
    match = re.search(rf"^## {re.escape(version)}\b.*?\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return match.group(1).strip() if match else ""


def main(tag: str | None) -> int:
    """Print the notes, or what is wrong; the exit code."""
    found = versions()
    wanted = (tag or f"v{found['ptychopinn']}").removeprefix("v")
    wrong = [f"{name} has the version {version}, not {wanted}" for name, version in found.items() if version != wanted]
    text = notes((ROOT / "CHANGELOG.md").read_text("utf-8"), wanted) if tag else "The versions agree."
    if not text:
        wrong.append(f"CHANGELOG.md has no part '## {wanted}'")
    print(*(wrong or [text]), sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
