"""Makes the figures of the pages on concepts and troubleshooting, and the tutorial's: python docs/figures.py [NAME...].

All scans are simulated, with fixed seeds. It takes some minutes. `tutorial` and `sparse-and-dim` need the torch
backend. The latter, at the head of the README, trains for eleven minutes; on a busy machine its networks are worse.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

import ptychopinn
from ptychopinn.config import SimulationConfig
from ptychopinn.config.simulation import ObjectKind
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.geometry import Frame
from ptychopinn.metrics import Aligned, align, scan_box, score
from ptychopinn.metrics.baselines import poisson_residual
from ptychopinn.reconstruction import Reconstruction
from ptychopinn.simulate import simulate_scan, true_patches
from ptychopinn.stitching import Stitcher, patch_weights
from ptychopinn.typing import AnyArray, ComplexArray
from ptychopinn.workflows import create_solver, solve

IMAGES = Path(__file__).parent / "images"
SIDE = 18
TUTORIAL = {
    "first.png": "tutorial-inspect",
    "first/phase.png": "tutorial-phase",
    "second/uncertainty.png": "tutorial-uncertainty",
}
PHASE = {"cmap": "viridis", "vmin": -1.0, "vmax": 1.0}


def scan(**changes: Any) -> ScanDataset:
    """A simulated scan of a textured object, on a jittered grid."""
    settings: dict[str, Any] = {
        **{"N": 64, "rows": SIDE, "cols": SIDE, "overlap": 0.75, "nphotons": 1e6, "seed": 3},
        "object_kind": ObjectKind.TEXTURED,
    }
    return simulate_scan(SimulationConfig(**(settings | changes)))


def passes(data: ScanDataset, count: int = 25, **options: Any) -> Reconstruction:
    """A reconstruction from a flat object."""
    return solve(create_solver("rpie", {"passes": count, **options}), data)


def error_of(truth: ScanDataset, obj: ComplexArray) -> float:
    """|G - R| / |G| inside the scan box, after alignment."""
    aligned = aligned_with(truth, obj)
    return float(np.linalg.norm(aligned.reference - aligned.reconstruction) / np.linalg.norm(aligned.reference))


def aligned_with(truth: ScanDataset, obj: ComplexArray) -> Aligned:
    """The true object and a reconstruction, aligned."""
    assert truth.object_guess is not None
    return align(truth.object_guess, obj, scan_box(truth.positions, truth.object_guess.shape))


def phase_inside(truth: ScanDataset, found: Reconstruction) -> AnyArray:
    """The phase inside the box of the scan's positions, about that of the mean."""
    part = found.object[box_of(truth, found.frame)]
    return np.angle(part * np.exp(-1j * np.angle(part.mean())))


def box_of(truth: ScanDataset, frame: Frame) -> tuple[slice, slice]:
    """The box of the positions in an array of this frame."""
    low, high = np.floor(truth.positions.min(axis=0)).astype(int), np.ceil(truth.positions.max(axis=0)).astype(int)
    y, x = (slice(max(a - o, 0), b - o + 1) for a, b, o in zip(low, high, frame.origin, strict=True))
    return y, x


def save(figure: Any, name: str) -> None:
    """Write a figure."""
    figure.savefig(IMAGES / f"{name}.png", dpi=100, metadata={"Software": None})
    plt.close(figure)


def montage(pictures: Mapping[str, AnyArray], columns: int, name: str, styles: Sequence[dict[str, Any]] = ()) -> None:
    """Pictures with titles in rows."""
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.3 * columns, 2.55 * rows), squeeze=False, layout="constrained"
    )
    for place in axes.ravel():
        place.set_axis_off()
    chosen = styles or [PHASE] * len(pictures)
    for place, (title, picture), style in zip(axes.ravel(), pictures.items(), chosen, strict=False):
        place.imshow(picture, interpolation="nearest", **style)
        place.set_title(title, fontsize=9)
    save(figure, name)


def failures() -> None:
    """What the phase looks like when something is wrong: one scan, one error at a time."""
    good = scan()
    rng = np.random.default_rng(1)
    middle = good.positions.mean(axis=0)
    wrong = {
        "as it should be": good,
        "1  y has the other sign": replace(good, positions=good.positions * [-1, 1]),
        "2  axes swapped": replace(good, positions=good.positions[:, ::-1]),
        "3  positions 10% too large": replace(good, positions=middle + 1.1 * (good.positions - middle)),
        "4  positions off by 3 px": replace(good, positions=good.positions + rng.normal(0, 3, good.positions.shape)),
        "5  patterns one position late": replace(good, positions=np.roll(good.positions, 1, axis=0)),
        "6  another probe": replace(good, probe=scan(probe_kind="annular").probe),
        "7  background of 20%": scan(background_share=0.2),
        "8  1,000 photons a pattern": scan(nphotons=1e3),
        "9  positions far apart": scan(overlap=0.15, rows=SIDE // 3, cols=SIDE // 3),
        "10  beam flickers by 60%": scan(flux_deviation=0.6),
        "11  saturated at 2,000 counts": replace_saturation(scan(saturation_counts=2000)),
    }
    pictures = {}
    for title, given in wrong.items():
        data = replace(given, object_guess=None)  # the frame follows the positions, as in a measured scan
        found = passes(data)
        pictures[f"{title}\nR {found.residual:.3f}"] = phase_inside(data, found)
    montage(pictures, 4, "troubleshooting")


def replace_saturation(data: ScanDataset) -> ScanDataset:
    """The scan without what its file says of saturated pixels: they are believed."""
    return replace(data, metadata=data.metadata.model_copy(update={"saturation_counts": None}))


def patch_phases() -> None:
    """Patches that a network predicts have any phase; their overlaps say which."""
    data = scan(rows=12, cols=12)
    assert data.object_guess is not None
    patches = true_patches(data.object_guess, data.positions, data.N)[:, 16:48, 16:48]
    phases = np.exp(1j * np.random.default_rng(0).uniform(-np.pi, np.pi, len(data)))
    frame = Frame.around(data.positions, data.N)
    stitched = []
    for factors in (phases, np.ones(len(data), complex)):
        stitcher = Stitcher(patch_weights(data.probe, 32), frame)
        stitcher.add((patches * factors[:, None, None]).astype(np.complex64), data.positions)
        stitched.append(stitcher.result().object)
    middle = np.argsort(np.hypot(*(data.positions - data.positions.mean(axis=0)).T))[:3]
    pictures = {f"patch {k}": np.angle(patches[k] * phases[k]) for k in middle}
    cyclic = {"cmap": "twilight", "vmin": -np.pi, "vmax": np.pi}
    for title, obj in zip(("stitched as they are", "with a common phase"), stitched, strict=True):
        pictures[title] = np.angle(obj)[box_of(data, frame)]
    montage(pictures, 5, "concept-phases", [cyclic] * 4 + [PHASE])


def residual() -> None:
    """A residual that falls while the error rises: passes fit noise where photons are few."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.9), layout="constrained", sharey=True)
    counts = (1, 2, 4, 8, 16, 32, 64)
    for place, photons in zip(axes, (1e6, 1e3), strict=True):
        data = scan(nphotons=photons, overlap=0.6, rows=12, cols=12)
        found = [passes(data, count) for count in counts]
        place.loglog(counts, [one.residual for one in found], "o-", label="forward residual R")
        place.loglog(counts, [error_of(data, one.object) for one in found], "s-", label="error of the object")
        place.axhline(poisson_residual(data.counts(slice(None)), ~data.bad_pixels), ls=":", c="0.4", label="R of noise")
        place.set(title=f"{photons:,.0f} photons a pattern", xlabel="passes from a flat object", xticks=counts)
        place.set_xticklabels([str(count) for count in counts])
    axes[0].legend(frameon=False)
    save(figure, "concept-residual")


def overlap() -> None:
    """When iteration from a flat object is enough."""
    figure, place = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
    overlaps = (0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
    for photons, marker in ((1e6, "o"), (1e4, "s"), (1e3, "^")):
        errors = []
        for share in overlaps:
            data = scan(overlap=share, nphotons=photons, rows=10, cols=10)
            errors.append(error_of(data, passes(data, 30).object))
        place.semilogy(overlaps, errors, f"{marker}-", label=f"{photons:,.0f} photons")
    place.set(
        xlabel="overlap of neighbouring probes", ylabel="error of the object", title="30 passes from a flat object"
    )
    place.invert_xaxis()
    place.legend(frameon=False, loc="upper left")
    save(figure, "concept-overlap")


def tutorial() -> None:
    """The pictures that the commands of docs/tutorial.md make."""
    blocks = re.findall(r"(?<!-->\n)```sh\n(.*?)```", (IMAGES.parent / "tutorial.md").read_text("utf-8"), re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["bash", "-euc", "\n".join(blocks)], cwd=folder, check=True)
        for made, name in TUTORIAL.items():
            shutil.copy(Path(folder, made), IMAGES / f"{name}.png")


def sparse_and_dim() -> None:
    """Every third position in each direction, and few photons: a network, passes after it, and passes alone."""
    rows: tuple[tuple[str, dict[str, float], int, int, int], ...] = (
        ("every 3rd position", {}, 3, 560, 10),
        ("1,000 photons a pattern", {"nphotons": 1e3}, 1, 120, 3),
    )
    figure, axes = plt.subplots(len(rows), 4, figsize=(10, 5.3), layout="constrained")
    for row, (what, changes, every, seconds, count) in zip(axes, rows, strict=True):
        train, whole = (ptychopinn.simulate_scan(seed=seed, **changes) for seed in (1, 2))
        model = ptychopinn.train(train, simulate_objects="mixed", max_time=seconds)
        line, place = np.divmod(np.arange(len(whole)), math.isqrt(len(whole)))
        data = whole.select(np.flatnonzero((line % every == 0) & (place % every == 0)))
        found = {
            "network alone": model.infer(data, refine=0).object,
            f"network, {count} passes": model.infer(data, refine=count).object,
            "ePIE, 100 passes": solve(create_solver("epie", {"passes": 100}), data).object,
        }
        aligned = {name: aligned_with(data, obj) for name, obj in found.items()}
        truth = np.angle(aligned["network alone"].reference)
        style = {"cmap": "viridis", "vmin": np.quantile(truth, 0.01), "vmax": np.quantile(truth, 0.99)}
        row[0].imshow(truth, **style)
        row[0].set(title="truth", ylabel=what, xticks=[], yticks=[])
        for ax, (name, one) in zip(row[1:], aligned.items(), strict=True):
            scores = score(one)
            ax.imshow(np.angle(one.reconstruction), **style)
            ax.set_title(f"{name}\n{scores['amp_ssim']:.2f} / {scores['phase_ssim']:.2f} / {scores['nrmse']:.3f}")
            ax.set_axis_off()
    save(figure, "sparse-and-dim")


FIGURES: Mapping[str, Callable[[], None]] = {
    "troubleshooting": failures,
    "concept-phases": patch_phases,
    "concept-residual": residual,
    "concept-overlap": overlap,
    "tutorial": tutorial,
    "sparse-and-dim": sparse_and_dim,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(FIGURES)}; all, if none is named")
    names = parser.parse_args().names or list(FIGURES)
    if unknown := sorted(set(names) - set(FIGURES)):
        parser.error(f"there is no {', '.join(unknown)}: choose from {', '.join(FIGURES)}")
    for figure_name in names:
        FIGURES[figure_name]()
