"""The pictures and the report of a comparison."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from ptychopinn.atomic import write_bytes
from ptychopinn.comparison.files import read_arrays
from ptychopinn.comparison.scoring import best_candidates
from ptychopinn.comparison.table import MINUS, PASSES, Row, Status, passes_text
from ptychopinn.metrics import FrcCurve
from ptychopinn.report import ReportContent, Table, bare_phase, candidates_picture, frc_picture, write_report
from ptychopinn.typing import AnyArray

_MAIN_FIGURES = (  # quantity, metric, head
    (*PASSES, "passes"),
    ("phase", "ssim", "phase SSIM"),
    ("amp", "ssim", "amplitude SSIM"),
    ("phase", "corr", "phase correlation"),
    ("object", "nrmse", "error |G-R|/|G|"),
    ("object", "residual", "residual R"),
    ("phase", "frc50", "phase FRC50 (1/px)"),
    ("phase", "frc50_split", "phase FRC50, odd/even (1/px)"),
    ("run", "training_seconds", "training (s)"),
    ("run", "reconstruction_seconds", "reconstruction (s)"),
    ("run", "peak_anonymous_mib", "peak memory (MiB)"),
)
_EXPLANATION = (
    "SSIM, correlation, error and FRC50 compare with the reference inside the box of scan positions, after scale, "
    "phase ramp and shift are removed. R is the forward residual, the relative difference between the measured "
    "amplitudes and those that object and probe predict; it needs no reference, and it includes the noise. The best "
    "value of a column is bold green. Passes use every pattern once: those of a network follow its prediction; alone "
    "means that there were none."
)
_QUANTITIES: tuple[tuple[Literal["amp", "phase"], str], ...] = (("amp", "amplitude"), ("phase", "phase"))


def write_comparison_report(
    path: Path,
    pictures: Path,
    manifest: Mapping[str, Any],
    summary: Mapping[str, Any],
    rows: Sequence[Row],
    candidates: Path,
) -> Path:
    """Write the report of a comparison, and its pictures into ``pictures``."""
    names = [plan["name"] for plan in manifest["legs"]]
    scans = list(manifest["scans"])[::-1]  # the test scan first, as the more important one
    figures: list[tuple[str, bytes | str | Path]] = []
    for scan in scans:
        for caption, name, png in _pictures(scan, names, candidates, summary):
            write_bytes(pictures / f"{scan}-{name}.png", png)
            figures.append((caption, png))
    facts = {name: source["facts"] for name, source in manifest["scans"].items()}
    train, test = facts.get("train"), facts["test"]
    lead = f"{len(names)} reconstructors on the same scans: {', '.join(names)}. "
    if train is not None:
        lead += f"Networks were trained on {train['file']} ({train['patterns']} patterns). "
    lead += f"All reconstructed {test['file']} ({test['patterns']} patterns of {test['N']} x {test['N']})."
    failed = {
        name: candidate["message"]
        for name, candidate in summary["legs"].items()
        if candidate["status"] == Status.FAILED
    }
    best = summary["best"].get("test", {})
    content = ReportContent(
        title=f"Comparison on {test['file']}",
        lead=lead,
        warnings=[f"{name} failed: {reason}" for name, reason in failed.items()],
        summary=_cards(best, summary),
        grids={
            **{f"{scan.capitalize()} scan": _main_table(scan, names, summary) for scan in scans},
            "All figures": _full_table(rows, names, scans),
        },
        sliders=[slider for scan in scans for slider in _sliders(scan, summary["best"].get(scan, {}), candidates)],
        figures=figures,
        wide=True,
        tables={
            **{f"{name.capitalize()} scan, facts": values for name, values in facts.items()},
            **{f"Settings of {plan['name']}": _settings(plan) for plan in manifest["legs"]},
            "Comparison": {"baseline": manifest["baseline"], **manifest["config"]},
            "Versions": {
                "ptychopinn": manifest["version"],
                "numpy": metadata.version("numpy"),
                "python": platform.python_version(),
            },
        },
    )
    return write_report(path, content)


def _cards(best: Mapping[str, str], summary: Mapping[str, Any]) -> dict[str, str]:
    """The best candidate by each of the main figures, on the test scan."""
    cards = {}
    for quantity, metric, head in _MAIN_FIGURES:
        candidate = best.get(f"{quantity} {metric}")
        if (
            candidate is not None
            and (quantity != "run" or metric == "reconstruction_seconds")
            and metric != "frc50_split"
        ):
            value = summary["legs"][candidate]["scans"]["test"][quantity][metric]
            cards[f"best {head}"] = f"{candidate}: {value:.3g}"
    return cards


def _main_table(scan: str, names: Sequence[str], summary: Mapping[str, Any]) -> Table:
    """Table of the main figures with a row per candidate, without empty columns."""
    values = [summary["legs"][name]["scans"].get(scan, {}) for name in names]
    columns = [c for c in _MAIN_FIGURES if any(v.get(c[0], {}).get(c[1]) is not None for v in values)]
    if not columns:
        return Table(["candidate", "figures"], [[name, "failed"] for name in names])
    best = set()
    for j, (quantity, metric, _) in enumerate(columns, 1):
        known = {name: v.get(quantity, {}).get(metric) for name, v in zip(names, values, strict=True)}
        if metric != "training_seconds" and sum(value is not None for value in known.values()) > 1:  # solvers need none
            best |= {(names.index(name), j) for name in best_candidates(metric, known)}
    rows = []
    for name, value in zip(names, values, strict=True):
        failed = summary["legs"][name]["status"] == Status.FAILED
        cells = []
        for quantity, metric, _ in columns:
            known = value.get(quantity, {}).get(metric)
            cell = passes_text(known) if (quantity, metric) == PASSES and known is not None else known
            cells.append("failed" if known is None and failed else cell)
        rows.append([name, *cells])
    return Table(["candidate", *(c[2] for c in columns)], rows, frozenset(best), _EXPLANATION if scan == "test" else "")


def _full_table(rows: Sequence[Row], names: Sequence[str], scans: Sequence[str]) -> Table:
    """Table of all figures with a column per candidate."""
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        if not row.metric.endswith(MINUS):
            text = str(row.status) if row.value is None else f"{row.value:.5g}"
            cells.setdefault((row.scan, row.quantity, row.metric), {})[row.candidate] = text
    lines = [
        [f"{scan}: {quantity} {metric}", *(found.get(name, "") for name in names)]
        for (scan, quantity, metric), found in cells.items()
        if scan in scans
    ]
    return Table(["figure", *names], lines, folded=True)


def _settings(plan: Mapping[str, Any]) -> dict[str, object]:
    settings = plan["settings"] or {}
    sections = [*(settings[key] for key in ("model", "train", "infer", "execution") if key in settings)]
    sections += [plan["solver"]] if plan["solver"] else []
    flat = {key: value for section in sections for key, value in section.items() if value is not None}
    return {"from": plan["origin"], **flat}


def _pictures(
    scan: str, names: Sequence[str], candidates: Path, summary: Mapping[str, Any]
) -> list[tuple[str, str, bytes]]:
    """Captions, names and PNGs of the pictures of a scan."""
    arrays = {name: found for name in names if "reconstruction" in (found := read_arrays(candidates / name, scan))}
    if not arrays:
        return []
    reference = next((found["reference"] for found in arrays.values() if "reference" in found), None)
    shapes = {found["reconstruction"].shape for found in arrays.values()}
    pictures = []
    for quantity, word in _QUANTITIES:
        notes = {name: _note(summary["legs"][name]["scans"][scan], quantity) for name in arrays}
        if len(shapes) == 1:
            objects = {name: found["reconstruction"] for name, found in arrays.items()}
            png = candidates_picture(quantity, reference, objects, notes=notes, title=f"{scan} scan: {word}")
            below = "; below, the differences from the reference" if reference is not None else ""
            caption = f"The {word} of the {scan} scan inside the box of positions, on one colour scale{below}."
            pictures.append((caption, word, png))
    for key, against, word, what in (
        ("frc", "the reference", "frc", "with the reference"),
        ("frc_split", "the other half", "frc-odd-even", "of the odd with the even patterns, without a reference"),
    ):
        curves = _curves(arrays, key)
        if any(curves.values()):
            png = frc_picture(curves, title=f"{scan} scan", against=against)
            pictures.append((f"Fourier ring correlation {what}, {scan} scan.", word, png))
    return pictures


def _sliders(scan: str, best: Mapping[str, str], candidates: Path) -> list[tuple[str, bytes, bytes]]:
    """The best phase of a scan on that of the reference."""
    name = best.get("phase ssim")
    arrays = {} if name is None else read_arrays(candidates / name, scan)
    if "reference" not in arrays:
        return []
    reference = arrays["reference"]
    caption = (
        f"Phase of the {scan} scan: {name}, whose SSIM is the best, on the left, the reference on the right: drag the "
        "handle at the lower right corner."
    )
    return [(caption, bare_phase(arrays["reconstruction"], reference), bare_phase(reference, reference))]


def _note(values: Mapping[str, Any], quantity: str) -> str:
    """The passes of a candidate, and its scores against the reference, as far as they are known."""
    passes, known = values.get(PASSES[0], {}).get(PASSES[1]), values.get(quantity, {})
    notes = [] if passes is None else [passes_text(passes)]
    for metric, name in (("ssim", "SSIM"), ("corr", "correlation")):
        if (value := known.get(metric)) is not None:
            notes.append(f"{name} {value:.3f}")
    return ", ".join(notes)


def _curves(arrays: Mapping[str, Mapping[str, AnyArray]], key: str) -> dict[str, dict[str, FrcCurve]]:
    return {
        quantity: {name: FrcCurve(*a[f"{key}/{quantity}"]) for name, a in arrays.items() if f"{key}/{quantity}" in a}
        for quantity, _ in _QUANTITIES
    }
