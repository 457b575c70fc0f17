"""Write the object of a scan in tiles: product, pictures, report. It is never in memory as a whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptychopinn.atomic import nan_to_none, write_json
from ptychopinn.config.automatic import Freedom
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.geometry import Frame
from ptychopinn.metrics import flatness, scan_box
from ptychopinn.product import product_of, write_product
from ptychopinn.report import ObjectView, ReportContent, attempt, write_pictures, write_report
from ptychopinn.stitching import COVERED
from ptychopinn.system import allocate
from ptychopinn.tiled.store import COVERAGE, OBJECT, START, TileStore
from ptychopinn.tiled.worker import PassStart
from ptychopinn.typing import AnyArray
from ptychopinn.verdict import Evidence, Explains, judge
from ptychopinn.workflows import RunResult, caption, folders

_ROWS = 512  # rows of the object in memory at a time


@dataclass(frozen=True)
class TiledObject:
    """Where the object of a scan in tiles is, and figures of it."""

    object_round: str  # the round that has the object
    fitted_round: str | None  # the one that has its positions and flux; None if they were given
    residual: float  # forward residual R
    passes_kept: int
    start: PassStart
    story: tuple[str, ...]  # how the probe was found, in sentences


def write_tiled(folder: Path, data: ScanDataset, store: TileStore, found: TiledObject) -> RunResult:
    """Write product, sidecar, story, pictures and report.

    Raises
    ------
    ResourceError
        If the disk is full.
    """
    model, frame = store.model(), Frame.around(data.positions, data.N)
    positions, flux = (store.read_fitted(found.fitted_round, one) for one in (Freedom.POSITIONS, Freedom.FLUX))
    fitted: dict[str, float] = {}
    if positions is not None:
        fitted["positions moved, px"] = float(np.sqrt(((positions - data.positions) ** 2).sum(axis=1).mean()))
        data = replace(data, positions=positions).as_checked()
    if flux is not None:
        fitted["flux, deviation"] = float(flux.std())
    background, predicted, free = model.get("background"), found.start.predicted, found.start.free
    verdict = judge(Evidence(data, model["probe"], found.residual, passes=found.passes_kept, trained=predicted))
    warnings = [] if verdict.warning is None else [verdict.warning]
    start = "the object of the network" if predicted else "a flat object"
    if found.passes_kept == 0:
        warnings.append(f"No pass was kept, because none lowered the forward residual: the result is {start}.")
    story = " ".join(
        [
            *found.story,
            f"{len(store.cores)} tiles then had {store.plan['passes']} passes from {start}, with halos exchanged "
            f"after each; {found.passes_kept} are in the result.",
            *([f"After each pass, {' and '.join(free)} of all patterns were fitted."] if free else []),
        ]
    )
    with _on_disk(frame, np.complex64) as obj, _on_disk(frame, np.float32) as coverage:
        for rows in _strips(frame):
            part = Frame((rows.stop - rows.start, frame.shape[1]), (frame.origin[0] + rows.start, frame.origin[1]))
            coverage[rows] = store.read(START, COVERAGE, part)
            covered = coverage[rows] > COVERED
            obj[rows] = np.where(covered, store.read(found.object_round, OBJECT, part), np.complex64(1))
        box = scan_box(frame.local(data.positions), frame.shape)
        figures: dict[str, float | int | str] = {
            "patterns": len(data),
            "tiles": len(store.cores),
            "forward residual R": found.residual,
            **verdict.figures,
            **({} if box.is_empty else {"flatness": flatness(obj, box)}),
            "passes kept": found.passes_kept,
            **fitted,
        }
        product = product_of(data, obj, model["probe"], origin=frame.origin, coverage=coverage)
        product = replace(
            product,
            background=None if background is None else np.fft.fftshift(background),
            photon_count=float((np.abs(model["probe"].astype(np.complex128)) ** 2).sum()),
            comments="\n".join([f"ptychopinn reconstruct, in tiles. {story}", *warnings]),
        )
        write_product(folder / folders.PRODUCT, product)
        view = ObjectView(box, frame.origin, data.metadata.pixel_size_m, data.name)
        pictures = attempt("The pictures", lambda: write_pictures(folder, obj, model["probe"], view)) or {}
    (folder / folders.STORY).write_text(story + "\n", "utf-8")
    findings = [{"code": one.code, "text": one.text} for one in data.findings]
    sidecar = {"figures": figures, "warnings": warnings, "verdict": dict(verdict.record), "findings": findings}
    write_json(folder / folders.SIDECAR, nan_to_none(sidecar))
    content = ReportContent(
        title=f"Reconstruction of {data.name}",
        verdict=verdict.warning or verdict.sentence,
        verdict_kind={Explains.YES: "good", Explains.NO: "bad"}.get(verdict.explains, ""),
        summary=figures,
        tables={"How": {"what was done": story}},
        figures=[(caption(kind), path) for kind, path in pictures.items()],
        warnings=[*(one for one in warnings if one != verdict.warning), *(one.text for one in data.findings)],
    )
    report = attempt("The report", lambda: write_report(folder / folders.REPORT, content))
    files = {
        "product": folder / folders.PRODUCT,
        **pictures,
        "sidecar": folder / folders.SIDECAR,
        "story": folder / folders.STORY,
        **({} if report is None else {"report": report}),
    }
    return RunResult(folder, files, figures, tuple(warnings), verdict)


def _strips(frame: Frame) -> Iterator[slice]:
    height = frame.shape[0]
    return (slice(low, min(low + _ROWS, height)) for low in range(0, height, _ROWS))


@contextmanager
def _on_disk(frame: Frame, dtype: npt.DTypeLike) -> Iterator[AnyArray]:
    """An array of a frame in a temporary file, whose space on the disk is reserved."""
    height, width = frame.shape
    with tempfile.TemporaryFile(prefix="ptychopinn-") as file:
        allocate(file, height * width * np.dtype(dtype).itemsize)
        yield np.asarray(np.memmap(file, dtype, "r+", shape=(height, width)))
