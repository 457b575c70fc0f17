"""How fast everything is, and how much memory it takes.

    python benchmarks/speed.py [--sizes 64,128] [--patterns 2000,20000] [--parts all] [--backends torch,tf]
        [--json FILE] [--markdown FILE]

Each measurement runs in a process of its own. Beside them, in the same run, are the ceilings (a matrix product and
a memory copy) and passes of plain ePIE: rates and CPU times are given as shares of the ePIE pass at the same N, too,
for absolute figures move with the machine. Scans are one simulated field laid side by side, written to --scratch
(a folder that is removed again unless it is given); a scan that would take more than half of the free disk is left
out, and this is said.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Facts = dict[str, Any]
CEILINGS, CORE, NETWORK = (
    ("matrix product", "memory copy"),
    ("grouping", "stitching"),
    ("training", "forward", "inference", "inference + pass"),
)
PARTS = ("ceilings", "ePIE pass", "import", *CORE, *NETWORK)
_RECONSTRUCTIONS = ("inference", "inference + pass")  # file to object
_EVERY_SCAN = {"grouping", "stitching", *_RECONSTRUCTIONS}  # measured at each length; the rest on one field


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=numbers, default=[64, 128], help="N of the patterns (default: 64,128).")
    parser.add_argument("--patterns", type=numbers, default=[2000, 20000], help="Scans (default: 2000,20000).")
    parser.add_argument("--parts", type=words, default=["all"], help=f"Of: {', '.join(PARTS)} (default: all).")
    parser.add_argument("--backends", type=words, help="Default: those that are installed.")
    parser.add_argument("--devices", type=words, help="cpu, cuda (default: cpu, and cuda where there is one).")
    parser.add_argument("--precisions", type=words, default=["32"], help="Of the networks: 32, bf16 (default: 32).")
    parser.add_argument("--width", type=float, help="n_filters_scale of the networks (default: the network's).")
    parser.add_argument("--iterations", type=int, help="Of the networks (default: the network's).")
    parser.add_argument("--seconds", type=float, default=5.0, help="For each measurement, at least (default: 5).")
    parser.add_argument("--tiny", action="store_true", help="An untrained network of the smallest width, for memory.")
    parser.add_argument("--format", choices=("npz", "hdf5"), default="npz", help="Of the scan files.")
    parser.add_argument("--compress", action="store_true", help="Compress them.")
    parser.add_argument("--quick", action="store_true", help="N = 32 and 100 patterns, to see that it works.")
    parser.add_argument("--scratch", type=Path, help="Folder for scans and models (default: one that is removed).")
    parser.add_argument("--json", type=Path, help="Write the results here.")
    parser.add_argument("--markdown", type=Path, help="Write the table here.")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.measure:
        return measure(json.loads(args.measure))
    if args.quick:
        args.sizes, args.patterns, args.seconds = [32], [100], 0.1
    unknown = set(args.parts) - {"all", *PARTS}
    if unknown:
        parser.error(f"--parts: {', '.join(sorted(unknown))} is none of {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(prefix="ptychopinn-speed-") as temporary:
        folder = args.scratch or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        results = Run(args, folder).all()
    whole = {
        "machine": machine(),
        "arguments": {k: v for k, v in vars(args).items() if k != "measure"},
        "results": results,
    }
    text = table(results)
    print(text)
    if args.json:
        args.json.write_text(json.dumps(whole, indent=1, default=str) + "\n", encoding="utf-8")
    if args.markdown:
        args.markdown.write_text(text + "\n", encoding="utf-8")
    return 1 if any("error" in result for result in results) else 0


def numbers(text: str) -> list[int]:
    """``64,128`` as a list."""
    return [int(part) for part in text.split(",") if part]


def words(text: str) -> list[str]:
    """``torch,tf`` as a list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def measure(request: Facts) -> int:
    """One measurement, in this process; its facts are the last line of stdout."""
    from measures import MEASURES, watched

    with watched() as peaks:
        facts = MEASURES[request.pop("what")](**request)
    print(json.dumps(facts | peaks))
    return 0


class Run:
    """All measurements of one call."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self._args, self._folder = args, folder
        self._results: list[Facts] = []

    def wanted(self, part: str) -> bool:
        """Whether a part was asked for."""
        return "all" in self._args.parts or part in self._args.parts

    def all(self) -> list[Facts]:
        """Run them."""
        for what in CEILINGS if self.wanted("ceilings") else ():
            self.run(what)
        backends = self.backends()
        if self.wanted("import"):
            for backend in (None, *backends):
                self.run("import", backend=backend)
        devices = self._args.devices or (["cpu", "cuda"] if backends and has_cuda() else ["cpu"])
        if "cuda" in devices and "torch" in backends:
            for precision in ("fp32", "bf16"):
                self.run("device product", precision=precision)
        for size in self._args.sizes:
            self.of_size(size, backends, devices)
        return self._results

    def of_size(self, size: int, backends: list[str], devices: list[str]) -> None:
        """The measurements at one N."""
        shortest = min(*self._args.patterns, 2025)
        if self.wanted("ePIE pass"):
            self.run("ePIE pass", size=size, patterns=shortest)
        kinds = itertools.product(backends, devices, self._args.precisions)
        networks = [
            {"backend": b, "device": d, "precision": p, "model": str(self._folder / f"{b}-{d}-{p}-{size}.h5.zip")}
            for b, d, p in kinds
        ]
        reconstructed = [what for what in _RECONSTRUCTIONS if self.wanted(what)]
        for what in ("training", "forward"):
            needed = what == "training" and (self.wanted("forward") or reconstructed)
            for network in networks if self.wanted(what) or needed else ():
                self.run(what, size=size, patterns=shortest, **network)
        for patterns in self._args.patterns:
            if self.wanted("grouping"):
                self.run("grouping", size=size, patterns=patterns)
            if not (self.wanted("stitching") or (reconstructed and networks)):
                continue
            scan = self.scan(size, patterns)
            if scan is None:
                continue
            if self.wanted("stitching"):
                self.run("stitching", size=size, patterns=patterns, scan=str(scan))
            for what, network in itertools.product(reconstructed, networks):
                self.run(what, size=size, patterns=patterns, scan=str(scan), **network)
            if self._args.scratch is None:
                scan.unlink()

    def backends(self) -> list[str]:
        """Backends to measure."""
        from ptychopinn.plugins import discover, missing_requirements

        if not any(self.wanted(part) for part in ("import", *NETWORK)):
            return []
        specs = {n: s for n, s in discover().specs.items() if not missing_requirements(s) and s.capabilities}
        asked = self._args.backends
        return [name for name in specs if hasattr(specs[name].options, "model_fields")] if asked is None else asked

    def scan(self, size: int, patterns: int) -> Path | None:
        """The file of a scan; None, and a line in the results, where the disk is too small."""
        from tiled_scans import field_of, write_hdf5, write_npz

        suffix = {"npz": "npz", "hdf5": "h5"}[self._args.format]
        path = self._folder / f"{size}-{patterns}{'-packed' * self._args.compress}.{suffix}"
        if path.is_file():
            return path
        needed, free = 2 * patterns * size**2, shutil.disk_usage(self._folder).free
        if needed > free / 2:
            reason = f"its file takes {needed / 2**30:.0f} GiB, {free / 2**30:.0f} are free"
            self._results.append({"what": "scan", "size": size, "patterns": patterns, "left_out": reason})
            return None
        write = {"npz": write_npz, "hdf5": write_hdf5}[self._args.format]
        write(path, field_of(size, patterns), patterns, compress=self._args.compress)
        return path

    def run(self, what: str, **request: Any) -> None:
        """One measurement in a process of its own."""
        given = {"n_filters_scale": self._args.width, "iterations": self._args.iterations}
        network = {name: value for name, value in given.items() if value is not None}
        network |= {"n_filters_scale": 0.125, "iterations": 1} if self._args.tiny else {}
        asked = {"what": what, "seconds": self._args.seconds, "network": network, **request}
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, __file__, "--measure", json.dumps(asked)],
            capture_output=True,
            text=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        facts = {"what": what, **{k: v for k, v in request.items() if k not in ("model", "scan")}}
        if done.returncode == 0:
            facts |= json.loads(done.stdout.splitlines()[-1])
        else:
            facts["error"] = done.stderr.strip().splitlines()[-1][:300] if done.stderr.strip() else str(done.returncode)
        self._results.append(facts)
        took = time.perf_counter() - start
        shown = facts.get("error") or f"{facts['value']:.4g} {facts['unit']}"
        print(f"{label(facts)}: {shown}  ({took:.0f} s)", file=sys.stderr, flush=True)


def has_cuda() -> bool:
    """Whether NVIDIA's driver sees a device; asks no framework."""
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode == 0
    except OSError:
        return False


def label(facts: Facts) -> str:
    """What was measured, in words."""
    parts = [facts["what"], facts.get("backend"), facts.get("device")]
    parts += [facts["precision"] if facts.get("precision", "32") != "32" else None]
    parts += [f"N = {facts['size']}" if "size" in facts else None]
    parts += [f"{facts['patterns']} patterns" if facts["what"] in {*_EVERY_SCAN, "scan"} else None]
    return ", ".join(str(part) for part in parts if part)


def table(results: list[Facts]) -> str:
    """All results as a Markdown table, rates and CPU time beside the ePIE pass of the same N."""
    passes = {r["size"]: r for r in results if r["what"] == "ePIE pass" and "value" in r}
    heads = ("measured", "figure", "of an ePIE pass", "CPU us", "of an ePIE pass", "peak MiB (anonymous / resident)")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for facts in results:
        if "value" not in facts:
            lines.append(f"| {label(facts)} | {facts.get('left_out') or facts.get('error')} | | | | |")
            continue
        is_rate = facts["unit"] == "patterns/s"
        base = passes.get(facts.get("size", 0)) if is_rate else None
        cells = [
            label(facts),
            f"{facts['value']:,.{0 if facts['value'] >= 100 else 2}f} {facts['unit']}",
            "" if base is None else f"{facts['value'] / base['value']:.2f}",
            f"{facts['cpu_us']:.0f}" if is_rate else "",
            "" if base is None else f"{facts['cpu_us'] / base['cpu_us']:.2f}",
            f"{facts['peak_anonymous_mib']:.0f} / {facts['peak_resident_mib']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    staged = [facts for facts in results if "stages_us_a_pattern" in facts]
    if staged:
        lines += ["", "Stages, us a pattern:", ""]
        lines += [
            f"- {label(facts)}: " + ", ".join(f"{name} {us:.0f}" for name, us in facts["stages_us_a_pattern"].items())
            for facts in staged
        ]
    return "\n".join(lines)


def machine() -> Facts:
    """Where this ran."""
    facts: Facts = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        facts["processor"] = names[0] if names else platform.processor()
    for name in ("ptychopinn", "numpy", "scipy", "torch", "tensorflow"):
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            continue
    return facts


if __name__ == "__main__":
    sys.exit(main())
