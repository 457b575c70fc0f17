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
from ptychopinn.product import SUFFIXES, ProductFormat, product_formats, product_of, write_product, write_product_as
from ptychopinn.reconstruction import Reconstruction
from ptychopinn.report import (
    ObjectPart,
    ObjectView,
    ReportContent,
    attempt,
    bare_picture,
    uncertainty_picture,
    write_pictures,
    write_report,
)
from ptychopinn.stitching import StitchedObject
from ptychopinn.typing import ComplexArray, StrPath
from ptychopinn.uncertainty import Uncertainty
from ptychopinn.verdict import Explains, Verdict
from ptychopinn.workflows import folders

_MIN_PROBE_WIDTH = 25.0  # percent of a report's width: a smaller picture would show nothing


@dataclass(frozen=True)
class RunResult:
    """Results of a run."""

    folder: Path
    files: Mapping[str, Path]  # written files by kind: "model", "product", "phase", ...
    figures: Mapping[str, float | int | str] = field(default_factory=dict)  # figures to print, in order
    warnings: tuple[str, ...] = ()
    verdict: Verdict | None = None  # whether the object explains the patterns; None without an object


@dataclass(frozen=True)
class Description:
    """What the outputs say of an object."""

    title: str  # of the pictures or the report
    comments: str  # of the product
    history: Mapping[str, list[float]] | None = None  # of the training, if there was one


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
            "probe that varies, share": refined.variation_share,
        }
        figures |= {
            "likelihood of refinement": str(refined.likelihood),
            "refinement judged by": str(refined.judged_by),
            **({"patterns held out": refined.held_out} if refined.held_out else {}),
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


def write_object(
    folder: Path,
    data: ScanDataset,
    found: Reconstruction | StitchedObject,
    probe: ComplexArray,
    description: Description,
    *,
    formats: Collection[ProductFormat] = (),
) -> dict[str, Path]:
    """Write the product and the pictures of an object.

    Parameters
    ----------
    data:
        The scan; the pictures show the box of its positions.
    found:
        The object, its coverage and its frame; of a reconstruction also positions, flux, background and errors.
    probe:
        (modes, N, N) complex64 in counts.
    formats:
        Further formats of the product.

    Returns
    -------
    Kind to path, "product" first.
    """
    files = write_object_product(folder, data, found, probe, description, formats=formats)
    whole = found if isinstance(found, Reconstruction) else None
    positions = None if whole is None else whole.positions
    errors = None if whole is None else whole.uncertainty
    moved = None if positions is None or np.array_equal(positions, data.positions) else (data.positions, positions)
    view = object_view(data, found, description.title)
    pictures = attempt(
        "The pictures",
        lambda: write_pictures(folder, found.object, probe, view, history=description.history, moved=moved),
    )
    if errors is not None:
        path = folder / folders.UNCERTAINTY
        drawn = attempt("The picture of the errors", lambda: write_bytes(path, uncertainty_picture(errors, view)))
        pictures = {**(pictures or {}), **({} if drawn is None else {"uncertainty": drawn})}
    return {**files, **(pictures or {})}


def write_object_product(
    folder: Path,
    data: ScanDataset,
    found: Reconstruction | StitchedObject,
    probe: ComplexArray,
    description: Description,
    *,
    formats: Collection[ProductFormat] = (),
) -> dict[str, Path]:
    """Write the product of an object, as `write_object` does; the kind of each file to its path, "product" first."""
    whole = found if isinstance(found, Reconstruction) else None
    positions = None if whole is None else whole.positions
    errors = None if whole is None else whole.uncertainty
    history = description.history
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
        variation=None if whole is None else whole.variation,
        background=None if whole is None else whole.background,
        motion_px=None if whole is None or whole.motion_px is None else np.array(whole.motion_px, np.float32),
        phase_error=None if errors is None else errors.phase_error,
        amplitude_error=None if errors is None else errors.amplitude_error,
        frc=None if errors is None else np.stack([errors.frc.frequency, errors.frc.correlation], axis=1),
        losses=tuple((int(e), v) for e, v in zip(history["epoch"], history["loss"], strict=True)) if history else (),
        photon_count=float((np.abs(probe.astype(np.complex128)) ** 2).sum()),
        comments=description.comments,
    )
    write_product(folder / folders.PRODUCT, product)
    others = {str(form): (folder / folders.PRODUCT).with_suffix(SUFFIXES[form]) for form in formats}
    for form in formats:
        write_product_as(others[form], product, form)
    return {"product": folder / folders.PRODUCT, **others}


def write_outputs(
    folder: Path,
    data: ScanDataset,
    reconstruction: Reconstruction,
    description: Description,
    *,
    tables: Mapping[str, Mapping[str, object]],
    formats: Collection[ProductFormat] = (),
) -> RunResult:
    """Write the product, in further ``formats`` too, its sidecar, the pictures and the report.

    The title is that of the report; pictures have the name of the scan.
    """
    verdict, warnings, comments = reconstruction.verdict, reconstruction.warnings, description.comments
    if verdict is not None and verdict.warning is not None:
        comments = f"{comments}\n{verdict.warning}"
    written = write_object(
        folder,
        data,
        reconstruction,
        reconstruction.probe,
        replace(description, title=data.name, comments=comments),
        formats=formats,
    )
    pictures = {kind: path for kind, path in written.items() if path.suffix == ".png"}
    figures = reconstruction_figures(reconstruction, len(data))
    _write_sidecar(folder / folders.SIDECAR, figures, reconstruction, data)
    facts = {
        "patterns": len(data),
        "N": data.N,
        "probe modes": data.probe.shape[0],
        "measurement": data.measurement,
        **data.bad_counts,
        "scans": len(np.unique(data.scan_index)),
    }
    versions = {name: _version(name) for name in ("ptychopinn", "ptychopinn-torch", "ptychopinn-tf", "numpy")}
    versions = {name: version for name, version in versions.items() if version}
    versions["python"] = platform.python_version()
    verdict_text, verdict_kind = _conclusion(reconstruction)
    view = object_view(data, reconstruction, data.name)
    content = ReportContent(
        title=description.title,
        verdict=verdict_text,
        verdict_kind=verdict_kind,
        sliders=attempt("The sliders", lambda: _sliders(reconstruction, view)) or (),
        figure_widths={caption("probe"): probe_width_percent(data.N, view.width_px(reconstruction.object))},
        summary=figures,
        tables={"Scan": facts, **tables, "Versions": versions},
        figures=[(caption(kind), path) for kind, path in pictures.items()],
        warnings=[*(one for one in warnings if one not in verdict_text), *(one.text for one in data.findings)],
    )
    report = attempt("The report", lambda: write_report(folder / folders.REPORT, content))
    files = {**written, "sidecar": folder / folders.SIDECAR}
    if report is not None:
        files["report"] = report
    return RunResult(folder, files, figures, warnings, verdict)


def save_reconstruction(
    output: StrPath,
    data: ScanDataset,
    found: Reconstruction,
    *,
    story: Collection[str] = (),
    overwrite: bool = False,
    formats: Collection[ProductFormat | str] = (),
) -> RunResult:
    """Write a reconstruction that is in memory to a directory, with product, pictures and report.

    Parameters
    ----------
    story:
        What was done and why, in sentences.

    Raises
    ------
    UsageError, ResourceError
        If the directory is refused, or cannot be written.
    """
    others, said = product_formats(formats), " ".join(story)
    with folders.run_folder(output, overwrite=overwrite) as folder:
        return write_outputs(
            folder,
            data,
            found,
            Description(f"Reconstruction of {data.name}", f"ptychopinn. {said}".strip()),
            tables={"How": {"what was done": said}} if said else {},
            formats=others,
        )


def object_view(data: ScanDataset, found: Reconstruction | StitchedObject, title: str) -> ObjectView:
    """What pictures show of an object: the box of the scan's positions."""
    box = scan_box(data.positions - np.asarray(found.frame.origin), found.object.shape)
    return ObjectView(box, found.frame.origin, data.metadata.pixel_size_m, title)


def probe_width_percent(pattern_px: int, shown_px: int) -> float:
    """Width of the probe's picture, as a percentage of the report's width.

    A pixel of the probe is then as wide as a pixel of the object, whose picture is ``shown_px`` pixels wide.
    """
    return float(np.clip(100 * pattern_px / shown_px, _MIN_PROBE_WIDTH, 100))


def _conclusion(found: Reconstruction) -> tuple[str, str]:
    """Verdict and resolution in sentences, and whether they are good, bad or neither."""
    sentences, kind = [], ""
    if found.verdict is not None:
        sentences.append(found.verdict.warning or found.verdict.sentence)
        kind = {Explains.YES: "good", Explains.NO: "bad"}.get(found.verdict.explains, "")
    if (errors := found.uncertainty) is not None:
        metres = "" if errors.resolution_m is None else f", {errors.resolution_m * 1e9:.4g} nm"
        sentences.append(
            f"Resolution (half period): {errors.resolution_px:.2f} px{metres}. Standard error of the phase: "
            f"{errors.median_phase_error:.3g} rad (median)."
        )
    return " ".join(sentences), kind


def _sliders(found: Reconstruction, view: ObjectView) -> list[tuple[str, bytes, bytes]]:
    """Pairs of pictures that lie on each other: phase and amplitude, phase and its standard error."""
    phase = bare_picture(found.object, ObjectPart.PHASE, view)
    how = "Phase on the left, {} on the right: drag the handle at the lower right corner of the phase."
    sliders = [(how.format("amplitude"), phase, bare_picture(found.object, ObjectPart.AMPLITUDE, view))]
    if (errors := found.uncertainty) is not None:
        second = bare_picture(errors.phase_error, ObjectPart.PHASE_ERROR, view)
        sliders.append((how.format("its standard error"), phase, second))
    return sliders


def _write_sidecar(
    path: Path,
    figures: Mapping[str, float | int | str],
    reconstruction: Reconstruction,
    data: ScanDataset,
) -> None:
    """Write figures (null if they are not finite), warnings, verdict and findings as JSON beside the product."""
    verdict = reconstruction.verdict
    content = {
        "figures": figures,
        "warnings": list(reconstruction.warnings),
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
        "positions": "Scan positions: arrows lead from those of the scan to those that the reconstruction found.",
        "probe": "The probe.",
        "history": "Loss over the epochs of training.",
    }.get(kind, kind)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
