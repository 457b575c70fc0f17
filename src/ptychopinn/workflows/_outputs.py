"""Write the outputs of a run: product, pictures, report."""

from __future__ import annotations

import math
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from ptychopinn.atomic import write_bytes, write_json
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.metrics.alignment import scan_box
from ptychopinn.product import SUFFIXES, ProductFormat, product_of, write_product, write_product_as
from ptychopinn.reconstruction import Reconstruction
from ptychopinn.report import ObjectView, ReportContent, uncertainty_picture, write_pictures, write_report
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


def reconstruction_figures(reconstruction: Reconstruction, patterns: int) -> dict[str, float | int | str]:
    """The figures of a reconstruction, for tables and terminals."""
    seconds = sum(reconstruction.seconds.values())
    refined = reconstruction.refined
    predicted = reconstruction.placed + reconstruction.dropped
    located = reconstruction.located
    return {
        **({} if predicted == patterns else {"patterns predicted": predicted}),
        **(
            {}
            if located is None
            else {
                "overlaps of patches that agree": located.agreement,
                "positions located, px away": located.moved_px,
                **(
                    {}
                    if located.residuals is None
                    else {"residual, positions as given and located": " ".join(f"{r:.4f}" for r in located.residuals)}
                ),
            }
        ),
        "patches placed": reconstruction.placed,
        "patches dropped": reconstruction.dropped,
        "forward residual R": reconstruction.residual,
        **({} if reconstruction.verdict is None else reconstruction.verdict.figures),
        "flatness": reconstruction.flatness,
        "synchronisation": str(reconstruction.synchronised),
        **(
            {}
            if refined is None
            else {
                "likelihood of refinement": str(refined.likelihood),
                "refinement judged by": str(refined.judged_by),
                "residual before refinement": refined.residual_before,
                "residual after refinement": refined.residual_after,
                "passes of refinement kept": refined.passes_kept,
                "probe refined": str(refined.probe and refined.passes_kept > 0).lower(),
                **({} if refined.moved_px is None else {"positions moved, px": refined.moved_px}),
                **({} if refined.flux_deviation is None else {"flux, deviation": refined.flux_deviation}),
                **({} if refined.background_share is None else {"background, share": refined.background_share}),
            }
        ),
        **({} if reconstruction.uncertainty is None else _uncertainty_figures(reconstruction.uncertainty)),
        "patterns a second": patterns / max(seconds, 1e-9),
    }


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
    view = ObjectView(box, found.frame.origin, data.metadata.pixel_size_m, title)
    pictures = write_pictures(
        folder,
        found.object,
        probe,
        view,
        history=history,
        moved=None if positions is None or np.array_equal(positions, data.positions) else (data.positions, positions),
    )
    if errors is not None:
        pictures["uncertainty"] = folder / folders.UNCERTAINTY
        write_bytes(pictures["uncertainty"], uncertainty_picture(errors, view))
    return {"product": folder / folders.PRODUCT, **others, **pictures}


def write_outputs(  # noqa: PLR0913
    folder: Path,
    data: ScanDataset,
    reconstruction: Reconstruction,
    *,
    title: str,
    tables: Mapping[str, Mapping[str, object]],
    history: Mapping[str, list[float]] | None = None,
    warnings: tuple[str, ...] = (),
    comments: str = "",
    formats: Collection[ProductFormat] = (),
) -> dict[str, Path]:
    """Write product (in other ``formats`` too) with its sidecar, pictures and report.

    Returns
    -------
    Kind to path.
    """
    verdict = reconstruction.verdict
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
    _write_sidecar(folder / folders.SIDECAR, figures, warnings, verdict)
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
    shown = {"Result": figures, "Scan": facts, **tables, "Versions": versions}
    report = write_report(
        folder / folders.REPORT,
        ReportContent(
            title=title,
            summary={k: show(v) for k, v in shown.pop("Result").items()},
            tables={name: {k: show(v) for k, v in table.items()} for name, table in shown.items()},
            figures=[(caption(kind), path) for kind, path in pictures.items()],
            warnings=list(warnings),
        ),
    )
    return {**written, "sidecar": folder / folders.SIDECAR, "report": report}


def _write_sidecar(
    path: Path, figures: Mapping[str, float | int | str], warnings: tuple[str, ...], verdict: Verdict | None
) -> None:
    """Write figures, warnings and verdict as JSON beside the product; figures that are not finite are null."""
    content = {
        "figures": figures,
        "warnings": list(warnings),
        "verdict": None if verdict is None else dict(verdict.record),
    }
    write_json(path, _finite(content))


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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


def show(value: object) -> str:
    """Format a value for reading."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
