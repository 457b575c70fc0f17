"""The code of the README and of docs/ runs, block by block, in a folder with tiny scans.

A block that cannot run has a line before it that says why: ``<!-- not run: needs a CUDA device -->``. A training has
two epochs here and a simulated scan has 64 patterns, whatever the page says. The README's commands run in a shell;
those of other pages run in this process, which spares each of them seconds of imports, unless they need a shell.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import pytest
import yaml
from markdown_it import MarkdownIt

from ptychopinn.cli import main
from ptychopinn.comparison import comparison_settings
from ptychopinn.config import SimulationConfig
from ptychopinn.data.io import write_scan
from ptychopinn.plugins import discover, missing_requirements
from ptychopinn.simulate import simulate_scan

ROOT = Path(__file__).resolve().parents[2]
PATTERNS = ("*.md", "docs/*.md", "plugins/*/README.md", "models/README.md", "examples/*/README.md")
PAGES = sorted(str(page.relative_to(ROOT)) for pattern in PATTERNS for page in ROOT.glob(pattern))
NOT_RUN = re.compile(r"<!-- not run: (needs \S.*) -->")
SECONDS_A_BLOCK = 300
# A command that needs no shell: plain words, quoted or not.
COMMAND = re.compile(r"""ptychopinn(?:\s+(?:'[^']*'|"[^"$]*"|[\w./:,=+@%-]+))*\s*(?:\s#.*)?""")

# What a page takes as given, beside the scans: trained models; other plugins than the torch backend.
MODELS = {
    "docs/command-line.md": ("RUN_A", "RUN_B"),
    "docs/comparison.md": ("RUN_A", "RUN_B"),
    "docs/any-beam.md": ("run",),
    "docs/many-scans.md": ("run",),
    "docs/streaming.md": ("RUN", "run"),
}
PLUGINS = {"plugins/tf_backend/README.md": {"tf"}, "plugins/ptychi_backend/README.md": {"torch", "ptychi"}}
SCANS = ("DATA", "REF", "SCAN", "A", "B", "OLD", "TRAIN", "TEST", "scan", "reference", "any", "new")
STUDY = """\
study: {legs: [torch-pinn, rpie], photons: [1e4], overlap: [0.7]}
simulation: {N: 32, rows: 7, cols: 7}
train: {nepochs: 1, probe_refinement: 0}
solver: {passes: 5}
"""
# How what a page shows is made small.
SMALL = (
    (re.compile(r"--max-time \d+"), "--max-time 30"),
    (re.compile(r"(?<=train: {max_time: )\d+"), "30, nepochs: 2"),
    (re.compile(r"(?<=train={\"max_time\": )\d+"), '30, "nepochs": 2'),
    (re.compile(r"(?<=train\(scan, max_time=)\d+"), "30, nepochs=2"),
    (re.compile(r"(ptychopinn (?:train|compare) (?!.*--nepochs).*?)(?=\s+#|$)", re.MULTILINE), r"\1 --nepochs 2"),
    (re.compile(r"--legs torch-pinn torch-supervised epie"), "--legs torch-pinn epie"),
    (re.compile(r" --(?:rows|cols) \d+"), ""),
    (re.compile(r"(?<=ptychopinn simulate )"), "--N 32 --rows 8 --cols 8 "),
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text and first line, and why it is not run."""

    language: str
    text: str
    line: int
    not_run: str | None


def blocks_of(text: str) -> list[Block]:
    """The code blocks of a page.

    Raises
    ------
    ValueError
        If one is indented instead of fenced, or a reason stands before no block.
    """
    blocks = []
    reason = None
    for token in MarkdownIt().parse(text):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "code_block":
            raise ValueError(f"line {line}: an indented block; fence it, with its language")
        if token.type == "fence":
            blocks.append(Block(token.info, token.content, line, reason))
            reason = None
        elif reason is not None:
            raise ValueError(f"line {line}: no code follows '{reason}'")
        elif token.type == "html_block" and "not run" in token.content:
            match = NOT_RUN.fullmatch(token.content.strip())
            if match is None:
                raise ValueError(f"line {line}: write <!-- not run: needs ... -->")
            reason = match.group(1)
    return blocks


def shortened(text: str) -> str:
    for pattern, replacement in SMALL:
        text = pattern.sub(replacement, text)
    return text


def write_growing_file(path: Path, seed: int) -> None:
    """A finished file as a detector writes it."""
    data = simulate_scan(SimulationConfig(N=32, rows=8, cols=8, seed=seed))
    with h5py.File(path, "w") as file:
        file["diff3d"] = data.counts(slice(None)).astype("u2")
        file["ycoords"], file["xcoords"] = data.positions.T
        file["finished"] = 1


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 patterns of 32 x 32 under every name that a page uses."""
    folder = tmp_path_factory.mktemp("scans")
    for seed, name in enumerate(SCANS):
        write_scan(folder / f"{name}.npz", simulate_scan(SimulationConfig(N=32, rows=8, cols=8, seed=seed)))
    for name in ("SCAN.h5", "scan.h5"):
        write_growing_file(folder / name, seed=1)
    assert main(["convert", str(folder / "SCAN.npz"), "-o", str(folder / "SCAN.cxi")]) == 0
    (folder / "STUDY.yaml").write_text(STUDY)
    return folder


@pytest.fixture(scope="session")
def model(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", str(scans / "DATA.npz"), "-o", str(folder), "--backend", "torch", "--nepochs", "2"]) == 0
    return folder


@pytest.fixture
def page(request: pytest.FixtureRequest, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A page whose code is run, in a folder that has what it needs."""
    name: str = request.param
    registry = discover()
    usable = {one for one, spec in {**registry.specs, **registry.solvers}.items() if not missing_requirements(spec)}
    if lacking := PLUGINS.get(name, {"torch"}) - usable:
        pytest.skip(f"not installed: {', '.join(sorted(lacking))}")
    shutil.copytree(scans, tmp_path, dirs_exist_ok=True)
    for folder in MODELS.get(name, ()):
        shutil.copytree(request.getfixturevalue("model"), tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in [one for one in sys.modules if one.partition(".")[0] in ("my_package", "ptychopinn_mine")]:
        del sys.modules[module]


def write_packages_of_the_reader(folder: Path) -> None:
    """What the pages on plugins take for granted: the options of a backend and of a solver."""
    for package in ("ptychopinn_mine", "my_package"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
        (folder / package / "options.py").write_text("from ptychopinn.config import ExecutionOptions as MyOptions\n")


def names_of_the_reader() -> dict[str, Any]:
    """What a page takes for granted in Python: a detector that gives patterns of N x N with their positions."""
    data = simulate_scan(SimulationConfig(N=32, rows=8, cols=8, seed=1))
    return {"N": data.N, "detector": list(zip(data.counts(slice(None)), *data.positions.T, strict=True))}


def run_shell(text: str) -> None:
    # The programs of this environment first, whether or not it is activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", shortened(text)],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_A_BLOCK,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}:\n{done.stdout}"


def run_commands(text: str) -> None:
    """Run the commands of a block one after another in this process, or the block in a shell where it needs one."""
    lines = [
        line for line in re.sub(r"\\\n\s*", " ", shortened(text)).splitlines() if line and not line.startswith("#")
    ]
    if not all(COMMAND.fullmatch(line) for line in lines):
        return run_shell(text)
    for line in lines:
        code = main(shlex.split(line, comments=True)[1:])
        assert code == 0, f"exit code {code}: {line}"


def run(block: Block, names: dict[str, Any], run_lines: Callable[[str], None] = run_shell) -> None:
    """Run a block, commands of a shell by ``run_lines``, or read it where it is not code."""
    match block.language:
        case "sh":
            run_lines(block.text)
        case "python":
            exec(compile(shortened(block.text), "block", "exec"), names)
            if "def ptychopinn_reconstructors" in block.text:  # later blocks import it
                Path("ptychopinn_mine/plugin.py").write_text(block.text)
        case "yaml":
            comparison_settings(**yaml.safe_load(block.text))
        case "toml":
            tomllib.loads(block.text)
        case "ini":
            configparser.ConfigParser().read_string(block.text)
        case _:
            raise ValueError(f"no way to run '{block.language}'")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, indirect=True)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path) -> None:
    write_packages_of_the_reader(tmp_path)
    names = names_of_the_reader()
    for block in blocks_of((ROOT / page).read_text()):
        if block.not_run is None:
            try:
                run(block, names, run_shell if page == "README.md" else run_commands)
            except Exception as e:
                e.add_note(f"{page}, line {block.line}:\n{block.text}")
                raise


def test_most_code_that_needs_no_network_runs() -> None:
    """The way out is not taken too often."""
    blocks = [block for page in PAGES for block in blocks_of((ROOT / page).read_text())]
    offline = [block for block in blocks if "network" not in (block.not_run or "")]
    assert sum(block.not_run is None for block in offline) > 0.55 * len(offline)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A line.\n\n    ptychopinn plugins\n", "line 3: an indented block"),
        ("<!-- not run: needs a card -->\nA line.\n", "no code follows 'needs a card'"),
        ("<!-- not run -->\n\n```sh\nfalse\n```\n", "line 1: write <!-- not run: needs"),
    ],
)
def test_what_would_hide_code_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        blocks_of(text)


def test_blocks_have_their_language_line_and_reason() -> None:
    text = "# Title\n\n```sh\ntrue\n```\n\n<!-- not run: needs a card -->\n```python\n1 / 0\n```\n"
    assert blocks_of(text) == [Block("sh", "true\n", 3, None), Block("python", "1 / 0\n", 8, "needs a card")]


@pytest.mark.parametrize(
    ("language", "error"),
    [
        ("sh", AssertionError),
        ("python", SyntaxError),
        ("yaml", yaml.YAMLError),
        ("toml", tomllib.TOMLDecodeError),
        ("ini", configparser.Error),
        ("perl", ValueError),
    ],
)
def test_a_block_that_does_not_work_fails(language: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        run(Block(language, "false: [\n", 1, None), {})
