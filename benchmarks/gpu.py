"""What a CUDA card does with all of this: rates, time to quality, agreement with the CPU, and the tests marked gpu.

    python benchmarks/gpu.py [--wheels DIR] [--star SCAN.npz] [--seconds 400] [--json FILE] [--markdown FILE]
    python benchmarks/gpu.py --device cpu --quick       all of it in its smallest form, anywhere

For a machine that has PyTorch, h5py, SciPy, scikit-image, Matplotlib, rich and Lightning, and can fetch nothing: the
wheels of DIR that are not installed are installed from there into a folder that is removed afterwards, ours among them.
Without --wheels everything runs from this checkout, installed or not.

Each part runs in a process of its own, within its share of --seconds; what a part does not use goes to those after it.
A measurement for which no time is left is left out, a part that overruns is ended, and the results say so. Rates are
given as shares of the device's own matrix product and copy, measured in the same run: `gpu_parts.py` says of what.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

Facts = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
PROJECTS = (ROOT, ROOT / "plugins/torch_backend", ROOT / "plugins/tf_backend")
NEEDED = ("numpy", "scipy", "skimage", "h5py", "matplotlib", "rich", "pydantic", "pluggy", "yaml", "array_api_compat")
_GRACE_S = 3.0  # of the processes of a part, to start and to end
_OUTCOME = re.compile(r"^(\S+::\S+(?: .*)?) (PASSED|FAILED|ERROR|SKIPPED)", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes
    ----------
    name:
        A function of `gpu_parts`, or ``tests``.
    share:
        Of the time, relative to the others.
    least_s:
        Seconds below which it is not begun.
    """

    name: str
    share: float
    least_s: float


PARTS = (
    Part("rates", 0.42, 30.0),
    Part("quality", 0.17, 25.0),
    Part("agreement", 0.10, 15.0),
    Part("star", 0.13, 25.0),
    Part("tests", 0.18, 15.0),
)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:K or cpu (default: cuda).")
    parser.add_argument("--backend", default="torch", help="torch or tf (default: torch).")
    parser.add_argument("--sizes", type=numbers, default=[64, 128], help="N of the patterns (default: 64,128).")
    parser.add_argument("--patterns", type=int, default=20_000, help="Patterns in a scan (default: 20000).")
    parser.add_argument("--parts", type=words, default=[part.name for part in PARTS], help="Default: all.")
    parser.add_argument("--star", type=Path, help="A measured scan, with NAME-reference.npz beside it.")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="Install what is missing from here.")
    parser.add_argument("--seconds", type=float, default=400.0, help="For everything, at most (default: 400).")
    parser.add_argument("--quick", action="store_true", help="N = 32 and 64 patterns, to see that it works.")
    parser.add_argument("--json", type=Path, help="Write the results here.")
    parser.add_argument("--markdown", type=Path, help="Write the tables here.")
    args = parser.parse_args(arguments)
    if unknown := set(args.parts) - {part.name for part in PARTS}:
        parser.error(f"--parts: {', '.join(sorted(unknown))} is none of {', '.join(part.name for part in PARTS)}")
    if args.wheels is not None and not any(args.wheels.glob("*.whl")):
        parser.error(f"--wheels: there is no wheel in {args.wheels}")
    with tempfile.TemporaryDirectory(prefix="ptychopinn-gpu-") as temporary:
        whole = Run(args, Path(temporary)).all()
    text = markdown(whole)
    print(text)
    for path, content in ((args.json, json.dumps(whole, indent=1, default=str)), (args.markdown, text)):
        if path is not None:
            path.write_text(content + "\n", encoding="utf-8")
    return 1 if any("error" in facts for facts in whole["results"]) else 0


def numbers(text: str) -> list[int]:
    """``64,128`` as a list."""
    return [int(part) for part in text.split(",") if part]


def words(text: str) -> list[str]:
    """``rates,star`` as a list."""
    return [part.strip() for part in text.split(",") if part.strip()]


class Run:
    """All parts of one call."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self._args, self._folder = args, folder
        self._end = time.monotonic() + args.seconds
        packages = folder / "packages"
        packages.mkdir()
        paths = [packages, Path(__file__).parent]
        if args.wheels is not None:
            install_wheels(args.wheels, packages)
        else:
            paths += describe_checkout(packages)
        before = os.environ.get("PYTHONPATH")
        search = os.pathsep.join([*map(str, paths), *([before] if before else [])])
        self._env = os.environ | {"PYTHONPATH": search, "TF_CPP_MIN_LOG_LEVEL": "3"}

    def all(self) -> Facts:
        """The results of every part, and where and when they were measured."""
        begun = datetime.datetime.now(datetime.UTC)
        start = time.monotonic()
        results: list[Facts] = []
        machine: Facts = {}
        asked = [part for part in PARTS if part.name in self._args.parts]
        for number, part in enumerate(asked):
            left = self._end - time.monotonic()
            granted = left * part.share / sum(later.share for later in asked[number:])
            if why := self._why_not(part, granted):
                results.append({"part": part.name, "left_out": why})
                continue
            found = self.tests(granted) if part.name == "tests" else self.measured(part.name, granted)
            for facts in found:
                machine |= facts.pop("machine", {})
            results += [{"part": part.name, **facts} for facts in found if facts]
            print(f"{part.name}: {time.monotonic() - start:.0f} s since the start", file=sys.stderr, flush=True)
        return {
            "date": begun.isoformat(timespec="seconds"),
            "seconds": time.monotonic() - start,
            "arguments": vars(self._args),
            "machine": machine,
            "results": results,
        }

    def _why_not(self, part: Part, granted: float) -> str | None:
        if part.name == "star" and self._args.star is None:
            return "--star was not given"
        if part.name == "tests" and util.find_spec("pytest") is None and not self._brings("pytest"):
            return "pytest is not installed"
        least = part.least_s / (10 if self._args.quick else 1)
        return f"{granted:.0f} s were left, {least:.0f} are needed" if granted < least else None

    def _brings(self, package: str) -> bool:
        return (self._folder / "packages" / package).is_dir()

    def measured(self, name: str, granted: float) -> list[Facts]:
        """The lines that a function of `gpu_parts` printed until its time was over."""
        request = {
            "part": name,
            "device": self._args.device,
            "backend": self._args.backend,
            "sizes": [32] if self._args.quick else self._args.sizes,
            "patterns": 64 if self._args.quick else self._args.patterns,
            "star": None if self._args.star is None else str(self._args.star.resolve()),
            "quick": self._args.quick,
            "folder": str(self._folder),
            "end": time.time() + granted - 2 * _GRACE_S,
        }
        code = "import json, sys, gpu_parts; gpu_parts.main(json.loads(sys.argv[1]))"
        output, log = self._folder / f"{name}.jsonl", self._folder / f"{name}.log"
        ended = run_within([sys.executable, "-c", code, json.dumps(request)], granted, output, log, env=self._env)
        lines = output.read_text("utf-8").split("\n")
        found = [json.loads(line) for line in lines[:-1]]  # the last one may have been cut
        if ended is None:
            return [*found, {"left_out": f"ended after {granted:.0f} s, in the middle of a measurement"}]
        if ended != 0:
            told = log.read_text("utf-8", "replace").strip().splitlines()
            return [*found, {"error": f"ended with {ended}: {told[-1][:300] if told else 'nothing was printed'}"}]
        return found

    def tests(self, granted: float) -> list[Facts]:
        """Outcomes of the tests marked gpu of the backend and of the core."""
        folders = [ROOT / "tests", ROOT / f"plugins/{self._args.backend}_backend/tests"]
        files = [path for folder in folders for path in folder.rglob("test_*.py") if "mark.gpu" in path.read_text()]
        command = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", "-p", "no:cacheprovider", "--color=no", "-rs"]
        output, log = self._folder / "tests.txt", self._folder / "tests.log"
        ended = run_within([*command, *map(str, files)], granted, output, log, env=self._env)
        text = output.read_text("utf-8", "replace")
        outcomes = [(name, outcome) for name, outcome in _OUTCOME.findall(text)]
        words_of = {"passed": "PASSED", "failed": "FAILED", "errors": "ERROR", "skipped": "SKIPPED"}
        counts = {name: sum(outcome == word for _, outcome in outcomes) for name, word in words_of.items()}
        bad = [name for name, outcome in outcomes if outcome in ("FAILED", "ERROR")]
        facts: Facts = {"what": "tests marked gpu", **counts, "not_passed": bad}
        if ended is None:
            facts["left_out"] = f"ended after {granted:.0f} s"
        elif bad or ended not in (0, 5):  # 5: no test is there
            shown = [line for line in text.splitlines() if line.startswith("E  ")][:20]
            facts["error"] = f"pytest ended with {ended}; {'; '.join(bad) or text.strip().splitlines()[-1:]}"
            facts["told"] = shown
        return [facts]


def run_within(command: list[str], seconds: float, output: Path, log: Path, *, env: dict[str, str]) -> int | None:
    """Run a command, its children too, no longer than that; returns its exit code, None if it was ended."""
    with output.open("wb") as out, log.open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=env, cwd=ROOT, start_new_session=True)
        try:
            return process.wait(max(seconds - _GRACE_S, 1.0))
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def install_wheels(wheels: Path, target: Path) -> None:
    """Install our own wheels of a folder, and what else of it is missing here."""
    names = sorted({wheel.name.partition("-")[0] for wheel in wheels.glob("*.whl")})
    wanted = [name for name in names if name.startswith("ptychopinn") or not is_installed(name)]
    offline = ("--no-index", "--find-links", str(wheels.resolve()), "--no-deps", "--target", str(target))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-warn-conflicts", *offline, *wanted],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"The wheels of {wheels} cannot be installed: {done.stderr.strip()[-2000:]}")


def is_installed(name: str) -> bool:
    """Whether a distribution is there."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def describe_checkout(target: Path) -> list[Path]:
    """Make the distributions of this checkout known in a folder, as if they were installed; returns their sources."""
    if missing := [name for name in NEEDED if util.find_spec(name) is None]:
        raise SystemExit(f"{', '.join(missing)} cannot be imported; give --wheels a folder that has them.")
    for folder in PROJECTS:
        project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
        info = target / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        about = {"Metadata-Version": "2.1", "Name": project["name"], "Version": project["version"]}
        (info / "METADATA").write_text("".join(f"{key}: {value}\n" for key, value in about.items()))
        points = project.get("entry-points", {})
        groups = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in points.items()]
        (info / "entry_points.txt").write_text("\n".join(groups))
    return [folder / "src" for folder in PROJECTS]


def markdown(whole: Facts) -> str:
    """All results as Markdown tables."""
    machine = whole["machine"]
    title = machine.get("card", whole["arguments"]["device"])
    facts = ", ".join(f"{name} {value}" for name, value in machine.items() if name != "card")
    where = f"{facts}; {os.cpu_count()} cores, {platform.platform()}; {whole['seconds']:.0f} s in all."
    lines = [f"# {title}, {whole['date'][:10]}", "", where]
    by_part: dict[str, list[Facts]] = {}
    for found in whole["results"]:
        by_part.setdefault(found["part"], []).append(found)
    for part, found in by_part.items():
        rows = [{k: v for k, v in one.items() if k not in ("part", "told")} for one in found]
        lines += ["", f"## {part}", ""]
        columns = list(dict.fromkeys(key for row in rows for key in row if key not in ("error", "left_out")))
        notes = any("error" in row or "left_out" in row for row in rows)
        heads = [key.replace("_", " ") for key in columns] + ["note"] * notes
        lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for row in rows:
            cells = [shown(row.get(key)) for key in columns] + [row.get("error") or row.get("left_out") or ""] * notes
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(value: object) -> str:
    """A figure as a table has it."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
