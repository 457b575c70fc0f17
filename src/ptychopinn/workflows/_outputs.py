"""Write the outputs of a run: product, pictures, report."""

from __future__ import annotations

import math
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from ptychopinn.atomic import nan_to_none, write_bytes, write_json
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.metrics.alignment import scan_box
from ptychopinn.product import SUFFIXES, ProductFormat, product_of, write_product, write_product_as
from ptychopinn.reconstruction import Reconstruction
from ptychopinn.report import ObjectView, ReportContent, attempt, uncertainty_picture, write_pictures, write_report
from ptychopinn.stitching import StitchedObject
from ptychopinn.typing import ComplexArray
from ptychopinn.uncertainty import Uncertainty
from ptychopinn.verdict import Verdict
from ptychopinn.workflows import folders


@dataclass(frozen=True)
class RunResult:
    """Results of a run."""

    folder: Path
    files: Mapping[str, Path]  # written files by kind: "model", "product", "phase", ...
    figures: Mapping[str, float | int | str] = field(default_factory=dict)  # figures to print, in order
    warnings: tuple[str, ...] = ()
    verdict: Verdict | None = None  # whether the object explains the patterns; None without an object


def reconstruction_figures(found: Reconstruction, patterns: int) -> dict[str, float | int | str]:
    """The figures of a reconstruction, for tables and terminals."""
    figures: dict[str, float | int | str] = {}
    if (predicted := found.placed + found.dropped) != patterns:
        figures["patterns predicted"] = predicted
    if found.located is not None:
        figures["overlaps of patches that agree"] = found.located.agreement
        figures["positions located, px away"] = found.located.moved_px
        if found.located.residuals is not None:
            residuals = " ".join(f"{r:.4f}" for r in found.located.residuals)
            figures["residual, positions as given and located"] = residuals
    figures |= {"patches placed": found.placed, "patches dropped": found.dropped, "forward residual R": found.residual}
    if found.verdict is not None:
        figures |= found.verdict.figures
    figures |= {"flatness": found.flatness, "synchronisation": str(found.synchronised)}
    if (refined := found.refined) is not None:
        optional = {
            "positions moved, px": refined.moved_px,
            "flux, deviation": refined.flux_deviation,
            "background, share": refined.background_share,
            "motion in an exposure, px": _distance(found.motion_px),
        }
        figures |= {
            "likelihood of refinement": str(refined.likelihood),
            "refinement judged by": str(refined.judged_by),
            "residual before refinement": refined.residual_before,
            "residual after refinement": refined.residual_after,
            "passes of refinement kept": refined.passes_kept,
            "probe refined": str(refined.probe and refined.passes_kept > 0).lower(),
            **{name: value for name, value in optional.items() if value is not None},
        }
    if found.uncertainty is not None:
        figures |= _uncertainty_figures(found.uncertainty)
    figures["patterns a second"] = patterns / max(sum(found.seconds.values()), 1e-9)
    return figures


def _distance(motion_px: tuple[float, float] | None) -> float | None:
    return None if motion_px is None else math.hypot(*motion_px)


def _uncertainty_figures(found: Uncertainty) -> dict[str, float | int | str]:
    return {
        "standard error of phase, rad (median)": found.median_phase_error,
        "standard error of amplitude (median)": found.median_amplitude_error,
        "resolution, px (half period)": found.resolution_px,
        **({} if found.resolution_m is None else {"resolution, nm (half period)": found.resolution_m * 1e9}),
    }


def write_object(  # noqa: PLR0913
    folder: Path,
    data: ScanDataset,
    found: Reconstruction | StitchedObject,
    probe: ComplexArray,
    *,
    title: str,
    comments: str,
    history: Mapping[str, list[float]] | None = None,
    formats: Collection[ProductFormat] = (),
) -> dict[str, Path]:
    """Write the product and the pictures of an object.

    Parameters
    ----------
    data:
        The scan; the pictures show the box of its positions.
    found:
        The object, its coverage and its frame. A reconstruction has positions, flux and background of the product, too.
    probe:
        (modes, N, N) complex64 in counts.
    formats:
        Formats in which the product is written too.

    Returns
    -------
    Kind to path, "product" first.
    """
    whole = found if isinstance(found, Reconstruction) else None
    positions = None if whole is None else whole.positions
    errors = None if whole is None else whole.uncertainty
    product = product_of(
        data if positions is None else replace(data, positions=positions),
        found.object,
        probe,
        origin=found.frame.origin,
        coverage=found.coverage,
    )
    product = replace(
        product,
        flux=None if whole is None else whole.flux,
        background=None if whole is None else whole.background,
        motion_px=None if whole is None or whole.motion_px is None else np.array(whole.motion_px, np.float32),
        phase_error=None if errors is None else errors.phase_error,
        amplitude_error=None if errors is None else errors.amplitude_error,
        frc=None if errors is None else np.stack([errors.frc.frequency, errors.frc.correlation], axis=1),
        losses=tuple((int(e), v) for e, v in zip(history["epoch"], history["loss"], strict=True)) if history else (),
        photon_count=float((np.abs(probe.astype(np.complex128)) ** 2).sum()),
        comments=comments,
    )
    write_product(folder / folders.PRODUCT, product)
    others = {str(form): (folder / folders.PRODUCT).with_suffix(SUFFIXES[form]) for form in formats}
    for form in formats:
        write_product_as(others[form], product, form)
    box = scan_box(data.positions - np.asarray(found.frame.origin), found.object.shape)
    moved = None if positions is None or np.array_equal(positions, data.positions) else (data.positions, positions)
    view = ObjectView(box, found.frame.origin, data.metadata.pixel_size_m, title)
    pictures = attempt(
        "The pictures",
        lambda: write_pictures(folder, found.object, probe, view, history=history, moved=moved),
    )
    if errors is not None:
        path = folder / folders.UNCERTAINTY
        drawn = attempt("The picture of the errors", lambda: write_bytes(path, uncertainty_picture(errors, view)))
        pictures = {**(pictures or {}), **({} if drawn is None else {"uncertainty": drawn})}
    return {"product": folder / folders.PRODUCT, **others, **(pictures or {})}


def write_outputs(  # noqa: PLR0913
    folder: Path,
    data: ScanDataset,
    reconstruction: Reconstruction,
    *,
    title: str,
    tables: Mapping[str, Mapping[str, object]],
    history: Mapping[str, list[float]] | None = None,
    comments: str,
    warnings: tuple[str, ...] | None = None,
    formats: Collection[ProductFormat] = (),
) -> RunResult:
    """Write product (in other ``formats`` too) with its sidecar, pictures and report.

    ``warnings`` are all that are shown; None: those of the reconstruction.
    """
    verdict = reconstruction.verdict
    warnings = reconstruction.warnings if warnings is None else warnings
    if verdict is not None and verdict.warning is not None:
        comments = f"{comments}\n{verdict.warning}"
    written = write_object(
        folder,
        data,
        reconstruction,
        reconstruction.probe,
        title=data.name,
        comments=comments,
        history=history,
        formats=formats,
    )
    pictures = {kind: path for kind, path in written.items() if path.suffix == ".png"}
    figures = reconstruction_figures(reconstruction, len(data))
    _write_sidecar(folder / folders.SIDECAR, figures, warnings, reconstruction, data)
    facts = {
        "patterns": len(data),
        "N": data.N,
        "probe modes": data.probe.shape[0],
        "measurement": data.measurement,
        "bad pixels": int(data.bad_pixels.sum()),
        "scans": len(np.unique(data.scan_index)),
    }
    versions = {name: _version(name) for name in ("ptychopinn", "ptychopinn-torch", "ptychopinn-tf", "numpy")}
    versions = {name: version for name, version in versions.items() if version}
    versions["python"] = platform.python_version()
    content = ReportContent(
        title=title,
        summary=figures,
        tables={"Scan": facts, **tables, "Versions": versions},
        figures=[(caption(kind), path) for kind, path in pictures.items()],
        warnings=[*warnings, *(problem.text for problem in data.findings)],
    )
    report = attempt("The report", lambda: write_report(folder / folders.REPORT, content))
    files = {**written, "sidecar": folder / folders.SIDECAR}
    if report is not None:
        files["report"] = report
    return RunResult(folder, files, figures, warnings, verdict)


def _write_sidecar(
    path: Path,
    figures: Mapping[str, float | int | str],
    warnings: tuple[str, ...],
    reconstruction: Reconstruction,
    data: ScanDataset,
) -> None:
    """Write figures, warnings, verdict and findings as JSON beside the product; figures not finite are null."""
    verdict = reconstruction.verdict
    content = {
        "figures": figures,
        "warnings": list(warnings),
        "verdict": None if verdict is None else dict(verdict.record),
        "findings": [{"code": problem.code, "text": problem.text} for problem in data.findings],
    }
    write_json(path, nan_to_none(content))


def caption(kind: str) -> str:
    """Caption of a picture."""
    return {
        "amplitude": "Amplitude of the object inside the box of scan positions.",
        "phase": "Phase of the object inside the box of scan positions, without mean and ramp.",
        "uncertainty": "Standard errors of phase and amplitude, and correlation of two halves of the patterns.",
        "positions": "Scan positions, from where the scan has them to where the reconstruction found them.",
        "probe": "The probe.",
        "history": "Loss over the epochs of training.",
    }.get(kind, kind)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
