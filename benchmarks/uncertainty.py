"""Calibrate the standard errors of a reconstruction on simulated scans, and check them on other objects.

    python benchmarks/uncertainty.py calibrate WORK [--train-time 150]
    python benchmarks/uncertainty.py check WORK [--json FILE]
    python benchmarks/uncertainty.py picture FILE.png

``calibrate`` writes ``src/ptychopinn/uncertainty/_calibration.py``. Its scans are of all kinds of objects for training,
under four kinds of probes, at three doses and three overlaps. The check is on kinds that no calibration saw (textured
fields and a letter), at other overlaps. Half of the results are a network's prediction and 2 or 5 passes, the others 20
or 50 passes from a flat object. The networks are trained in WORK, one a dose, on simulated objects. What is
measured is kept in WORK, and an interrupted command goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from ptychopinn.config import InferConfig, SimulationConfig
from ptychopinn.config.simulation import ObjectKind, ProbeKind, ScanKind
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import write_scan
from ptychopinn.data.patterns import Patterns
from ptychopinn.geometry import Canvas, Frame, flat_object
from ptychopinn.metrics import align, scan_box
from ptychopinn.reconstruction import reconstruct
from ptychopinn.refinement import RefineOptions, refine
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_scan
from ptychopinn.simulate.objects import TRAINING_KINDS
from ptychopinn.typing import AnyArray, FloatArray
from ptychopinn.uncertainty import HALVES_AGREE, TERMS, ScanResult, estimate_uncertainty, gather_evidence

DOSES = (1e3, 1e4, 1e6)
CALIBRATION_OVERLAPS, CHECK_OVERLAPS = (0.55, 0.7, 0.85), (0.6, 0.8)
CHECK_OBJECTS = (
    (ObjectKind.TEXTURED, 901),
    (ObjectKind.TEXTURED, 902),
    (ObjectKind.TEXTURED, 903),
    (ObjectKind.LETTER, 904),
)
SIDE, N = 12, 64
EVERY_PX = 3  # neighbouring pixels tell the same
FREEDOM = 6.0  # degrees of freedom of Student's distribution: the errors of a picture have tails
CALIBRATION = Path(__file__).parents[1] / "src/ptychopinn/uncertainty/_calibration.py"
BUDGET = 1 << 30


@dataclass(frozen=True)
class Case:
    """A scan and how it is reconstructed."""

    kind: ObjectKind
    seed: int
    dose: float
    overlap: float
    start: str
    passes: int
    probe: ProbeKind

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.kind}-{self.seed}-{self.dose:g}-{self.overlap}-{self.start}-{self.passes}-{self.probe}"


def calibration_cases() -> Iterator[Case]:
    """Scans for the calibration."""
    for kind in TRAINING_KINDS:
        for dose in DOSES:
            for overlap in CALIBRATION_OVERLAPS:
                for repeat in (0, 1):
                    seed = zlib.crc32(f"{kind} {dose:g} {overlap} {repeat}".encode()) % 100_000 + 10_000
                    yield Case(kind, seed, dose, overlap, "network", 2 if seed % 2 else 5, ProbeKind.DISC)
                    probe = list(ProbeKind)[seed % len(ProbeKind)]
                    yield Case(kind, seed + 1, dose, overlap, "flat", 20 if seed % 2 else 50, probe)


def check_cases() -> Iterator[Case]:
    """Scans for the check."""
    for dose in DOSES:
        for overlap in CHECK_OVERLAPS:
            for kind, seed in CHECK_OBJECTS:
                yield Case(kind, seed, dose, overlap, "network", 2 if seed % 2 else 5, ProbeKind.DISC)
                probe = ProbeKind.DISC if seed % 2 else ProbeKind.DEFOCUSED
                yield Case(kind, seed + 50, dose, overlap, "flat", 20 if seed % 2 else 50, probe)


def scan_of(case: Case) -> ScanDataset:
    """The simulated scan."""
    return simulate_scan(
        SimulationConfig(
            N=N,
            rows=SIDE,
            cols=SIDE,
            overlap=case.overlap,
            nphotons=case.dose,
            seed=case.seed,
            object_kind=case.kind,
            probe_kind=case.probe,
            scan_kind=ScanKind.JITTERED,
        )
    )


@cache
def network(work: Path, dose: float, seconds: float) -> Any:
    """A network for the disc probe at a dose, trained on simulated objects of the kinds for training."""
    import ptychopinn
    from ptychopinn.workflows import load_reconstructor
    from ptychopinn.workflows.folders import MODEL

    run = work / f"run{dose:g}"
    if not (run / MODEL).exists():
        scan = work / f"scan{dose:g}.npz"
        config = SimulationConfig(N=N, rows=15, cols=15, nphotons=dose, seed=77, object_kind=ObjectKind.MIXTURE)
        write_scan(scan, simulate_scan(config))
        train = {"simulate_objects": "only", "group_size": 1, "batch_size": 32, "max_time": seconds}
        ptychopinn.train_run(scan, run, ptychopinn.run_settings("torch", train=train), overwrite=True)
    return load_reconstructor(run / MODEL, backend="torch", options=None)


def reconstruct_case(case: Case, work: Path, seconds: float) -> tuple[ScanDataset, Patterns, ScanResult, bool]:
    """The scan, its patterns, its reconstruction, and whether a pass was kept."""
    scan = scan_of(case)
    patterns = Patterns(scan, host_budget_bytes=BUDGET)
    if case.start == "network":
        found = reconstruct(
            network(work, case.dose, seconds), replace(scan, object_guess=None), InferConfig(refine=case.passes)
        )
        assert found.refined is not None
        model = ScanModel(found.probe, found.positions)
        return scan, patterns, ScanResult(found.object, found.frame, model), found.refined.passes_kept > 0
    frame = Frame.around(scan.positions, N)
    model = ScanModel(scan.probe, scan.positions)
    refined = refine(patterns, model, Canvas(flat_object(frame), frame), RefineOptions(case.passes))
    result = ScanResult(refined.object, frame, model, flat_start=True)
    return scan, patterns, result, refined.summary.passes_kept > 0


def true_errors(scan: ScanDataset, result: ScanResult) -> tuple[FloatArray, FloatArray, tuple[slice, slice]]:
    """Errors of amplitude and phase in the box, without factor and ramp, and the box in the frame of the result."""
    truth = scan.object_guess
    assert truth is not None
    whole = np.ones(truth.shape, np.complex64)
    Frame(truth.shape).paste(whole, result.object, result.frame)
    box = scan_box(scan.positions, truth.shape)
    aligned = align(truth, whole, box, register=False)
    true, found = aligned.reference, aligned.reconstruction
    local = scan_box(result.frame.local(scan.positions), result.frame.shape)
    return np.abs(found) - np.abs(true), np.angle(found * true.conj()), local.slices


def sample(case: Case, work: Path, seconds: float) -> dict[str, AnyArray] | None:
    """Terms and errors of some pixels of a calibration scan; None if no pass was kept."""
    path = work / f"{case.name}.npz"
    if not path.exists():
        scan, patterns, result, kept = reconstruct_case(case, work, seconds)
        if not kept:
            np.savez(path)
            return None
        evidence = gather_evidence(patterns, result)
        amplitude, phase, box = true_errors(scan, result)
        thin = (slice(None, None, EVERY_PX), slice(None, None, EVERY_PX))
        modulus = np.abs(result.object[box])
        np.savez(
            path,
            few=evidence.few_photons,
            amplitude=amplitude[thin].ravel() / math.sqrt(evidence.amplitude_scale),
            phase=(phase * modulus)[thin].ravel() / math.sqrt(evidence.phase_scale),
            amplitude_terms=evidence.amplitude_terms[:, *box][:, *thin].reshape(len(TERMS), -1),
            phase_terms=evidence.phase_terms[:, *box][:, *thin].reshape(len(TERMS), -1),
        )
    with np.load(path) as stored:
        return dict(stored) or None


def fit(samples: Sequence[dict[str, AnyArray]], quantity: str) -> FloatArray:
    """Coefficients that make Student's likelihood of the errors largest, and then the shares right."""
    weight = np.concatenate([np.full(len(s[quantity]), 1 / len(s[quantity])) for s in samples]) / len(samples)
    terms = np.concatenate([s[f"{quantity}_terms"] for s in samples], axis=1).astype(np.float64)
    square = np.concatenate([s[quantity] for s in samples]).astype(np.float64) ** 2 + 1e-12

    def loss(b: FloatArray) -> tuple[float, FloatArray]:
        logs = b @ terms
        ratio = square * np.exp(-np.clip(logs, -50, 50)) / FREEDOM
        value = weight @ (logs / 2 + (FREEDOM + 1) / 2 * np.log1p(ratio)) + 1e-3 * float(b[1:] @ b[1:])
        slope = terms @ (weight * (0.5 - (FREEDOM + 1) / 2 * ratio / (1 + ratio)))
        return float(value), slope + 2e-3 * np.r_[0, b[1:]]

    found: FloatArray = minimize(loss, np.zeros(len(TERMS)), jac=True, method="L-BFGS-B").x
    scaled = np.sqrt(square * np.exp(-found @ terms))

    def wrong(factor: float) -> float:
        within = [float(weight @ (scaled < k * factor)) for k in (1, 2)]
        return ((within[0] - 0.68) / 0.05) ** 2 + ((within[1] - 0.95) / 0.03) ** 2

    found[0] += 2 * math.log(min(np.linspace(0.8, 1.5, 141), key=wrong))
    return found


def calibrate(work: Path, seconds: float) -> None:
    """Measure, fit, write."""
    samples = [s for case in calibration_cases() if (s := sample(case, work, seconds)) is not None]
    lines = []
    for few, name in ((True, "few"), (False, "many")):
        chosen = [s for s in samples if bool(s["few"]) == few]
        print(f"{name} photons: {len(chosen)} scans")
        fits = {quantity: fit(chosen, quantity) for quantity in ("amplitude", "phase")}
        lines.append(f'    "{name}": {{\n')
        for quantity, values in fits.items():
            print(f"  {quantity:10s}" + ", ".join(f"{t} {v:+.2f}" for t, v in zip(TERMS, values, strict=True)))
            numbers = ", ".join(f"{v:.3f}" for v in values)
            lines.append(f'        "{quantity}": ({numbers}),\n')
        lines.append("    },\n")
    text = CALIBRATION.read_text(encoding="utf-8")
    head = text[: text.index("COEFFICIENTS = {")]
    CALIBRATION.write_text(head + "COEFFICIENTS = {\n" + "".join(lines) + "}\n", encoding="utf-8")


def check(work: Path, seconds: float, json_path: str | None) -> None:
    """Shares of pixels within one and two standard errors, on objects that the calibration did not see."""
    rows = []
    for case in check_cases():
        scan, patterns, result, kept = reconstruct_case(case, work, seconds)
        if not kept:
            print(f"{case.name}: no pass was kept", flush=True)
            continue
        found = estimate_uncertainty(patterns, result)
        amplitude, phase, box = true_errors(scan, result)
        row: dict[str, Any] = {"case": case.name, "dose": case.dose, "overlap": case.overlap, "start": case.start}
        for quantity, error, estimate in (
            ("phase", phase, found.phase_error[box]),
            ("amplitude", amplitude, found.amplitude_error[box]),
        ):
            scaled = np.abs(error) / estimate
            row |= {f"{quantity}_1": float((scaled < 1).mean()), f"{quantity}_2": float((scaled < 2).mean())}
            row |= {
                f"{quantity}_error": float(np.sqrt((error**2).mean())),
                f"{quantity}_median": float(np.median(estimate)),
            }
        rows.append(row | {"resolution_px": found.resolution_px})
        print(case.name, " ".join(f"{k} {v:.3f}" for k, v in row.items() if isinstance(v, float)), flush=True)
    if json_path:
        Path(json_path).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print("\n| photons | overlap | phase: within 1, 2 | amplitude: within 1, 2 |\n|---|---|---|---|")
    for dose in DOSES:
        for overlap in CHECK_OVERLAPS:
            some = [r for r in rows if r["dose"] == dose and r["overlap"] == overlap]
            shares = [
                ", ".join(f"{100 * np.mean([r[f'{q}_{k}'] for r in some]):.0f}" for k in (1, 2))
                for q in ("phase", "amplitude")
            ]
            print(f"| {dose:g} | {overlap} | {shares[0]} | {shares[1]} |")


def picture(path: Path) -> None:
    """Draw object, its error and the standard errors of a simulated scan whose light is uneven."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    case = Case(ObjectKind.TEXTURED, 911, 1e4, 0.6, "flat", 50, ProbeKind.DISC)
    scan, patterns, result, _ = reconstruct_case(case, path.parent, 0)
    found = estimate_uncertainty(patterns, result)
    _, phase, box = true_errors(scan, result)
    shown = np.angle(result.object[box] * np.exp(-1j * np.angle(result.object[box].mean())))
    largest = float(np.percentile(found.phase_error[box], 99.5))
    figure, panels = plt.subplots(1, 4, figsize=(15, 3.7), layout="constrained", dpi=100)
    for axes, values, title, limits, colours in (
        (panels[0], shown, "phase (rad)", None, "viridis"),
        (panels[1], np.abs(phase), "its true error (rad)", (0, largest), "magma"),
        (panels[2], found.phase_error[box], "standard error (rad)", (0, largest), "magma"),
    ):
        low, high = limits or np.percentile(values, [0.5, 99.5])
        image = axes.imshow(values, vmin=low, vmax=high, cmap=colours)
        figure.colorbar(image, ax=axes, shrink=0.8)
        axes.set_title(title, fontsize=10)
        axes.axis("off")
    panels[3].plot(found.frc.frequency, found.frc.correlation)
    panels[3].axhline(HALVES_AGREE, color="0.5", linestyle="--", linewidth=1)
    panels[3].set(xlim=(0, 0.5), ylim=(-0.1, 1.05), xlabel="spatial frequency (cycles/px)")
    panels[3].set_title(f"correlation of the halves: {found.resolution_px:.1f} px", fontsize=10)
    figure.savefig(path, metadata={"Software": None})
    print(f"{np.mean(np.abs(phase) < found.phase_error[box]):.2f} of the pixels are within one standard error")


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("calibrate", "check", "picture"))
    parser.add_argument("path", help="Folder to work in, or the picture to write.")
    parser.add_argument("--train-time", type=float, default=150, help="Seconds of each network's training.")
    parser.add_argument("--json", help="Also write the figures of the check to this file.")
    args = parser.parse_args()
    path = Path(args.path)
    if args.command == "picture":
        return picture(path)
    path.mkdir(parents=True, exist_ok=True)
    if args.command == "calibrate":
        return calibrate(path, args.train_time)
    return check(path, args.train_time, args.json)


if __name__ == "__main__":
    main()
