"""A reconstruction in Python."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ptychopinn.api._scan import Scan
from ptychopinn.api._xarray import dataset_of_arrays
from ptychopinn.errors import UsageError
from ptychopinn.metrics import Measures, ScanBox, scan_box
from ptychopinn.product import ProductFormat
from ptychopinn.reconstruction import Reconstruction
from ptychopinn.report import (
    ObjectPart,
    ObjectView,
    card_html,
    card_picture,
    draw_object,
    draw_positions,
    draw_probe,
    new_axes,
)
from ptychopinn.simulate import probe_width_px
from ptychopinn.typing import AnyArray, ComplexArray, StrPath
from ptychopinn.workflows import (
    RunResult,
    align_in_frame,
    reconstruction_figures,
    save_reconstruction,
    scores_of,
)
from ptychopinn.workflows.reference import read_reference, reference_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Result(Reconstruction):
    """A `ptychopinn.reconstruction.Reconstruction` with its scan, pictures and scores."""

    scan: Scan
    story: tuple[str, ...] = ()  # what `reconstruct` did and why, in sentences

    def __repr__(self) -> str:
        return f"Result('{self.scan.name}': {', '.join(f'{name} {value}' for name, value in self._facts().items())})"

    def _facts(self) -> dict[str, object]:
        height, width = self.object.shape
        errors, explains = self.uncertainty, "unknown" if self.verdict is None else str(self.verdict.explains)
        return {
            "object": f"{height} x {width}",
            "R": f"{self.residual:.4g}",
            "explains the data": explains,
            **({} if errors is None else {"resolution": f"{errors.resolution_px:.3g} px"}),
            "warnings": len(self.warnings),
        }

    def _repr_html_(self) -> str:
        png = card_picture(self.plot, lambda axes: self.plot(axes, "amplitude"), self.plot_probe)
        verdict = {} if self.verdict is None else self.verdict.figures
        shown = {**self._facts(), **verdict, **({"what was done": " ".join(self.story)} if self.story else {})}
        return card_html(f"Reconstruction of {self.scan.name}", png, shown, self.warnings)

    @property
    def figures(self) -> dict[str, float | int | str]:
        """Figures of the reconstruction; the names are those of ``reconstruction.json`` with underscores."""
        named = reconstruction_figures(self, len(self.scan))
        return {re.sub(r"\W+", "_", name).strip("_"): value for name, value in named.items()}

    @property
    def box(self) -> ScanBox:
        """The box of scan positions, in pixels of the object."""
        return scan_box(self.frame.local(self.positions), self.object.shape)

    def plot(self, ax: Axes | None = None, part: ObjectPart | str = ObjectPart.PHASE) -> Axes:
        """Draw the object inside the box of scan positions; on new axes if none are given.

        Parameters
        ----------
        part:
            "phase" (without its mean and ramp), "amplitude", "complex" (phase as hue, amplitude as brightness),
            "coverage", or with standard errors "phase_error" and "amplitude_error".

        Returns
        -------
        The axes.

        Raises
        ------
        UsageError
            If there is no such part, or there are no standard errors.
        """
        part = _known_part(part)
        errors = self.uncertainty
        if part in {ObjectPart.PHASE_ERROR, ObjectPart.AMPLITUDE_ERROR}:
            if errors is None:
                raise UsageError("There are no standard errors.", "Reconstruct with uncertainty=True.")
            values: AnyArray = errors.phase_error if part is ObjectPart.PHASE_ERROR else errors.amplitude_error
        else:
            values = self.coverage if part is ObjectPart.COVERAGE else self.object
        ax = new_axes() if ax is None else ax
        draw_object(ax, values, part, ObjectView(self.box, self.frame.origin, self.scan.metadata.pixel_size_m))
        return ax

    def plot_probe(self, ax: Axes | None = None, mode: int = 0) -> Axes:
        """Draw a mode of the probe, phase as hue and amplitude as brightness. Returns the axes."""
        ax = new_axes() if ax is None else ax
        draw_probe(ax, self.probe, mode, self.scan.metadata.pixel_size_m)
        return ax

    def plot_positions(self, ax: Axes | None = None) -> Axes:
        """Draw the positions of the result in their order, and the width of the probe. Returns the axes."""
        ax = new_axes() if ax is None else ax
        draw_positions(ax, self.positions, probe_width_px(self.probe), self.scan.metadata.pixel_size_m)
        return ax

    def evaluate(self, reference: ComplexArray | StrPath | None = None) -> Measures:
        """Score the object against a trusted one, as ``ptychopinn evaluate`` does.

        Parameters
        ----------
        reference:
            (H, W) complex in the frame of the scan's positions, or a file; None takes the object of the scan.

        Returns
        -------
        Name to score, as `ptychopinn.metrics.score` defines them; NaN for one that cannot be computed.

        Raises
        ------
        DataError
            If it cannot be compared.
        UsageError
            If there is no reference.
        """
        if reference is None:
            known = reference_of(self.scan, None)
        else:
            known = np.asarray(reference) if isinstance(reference, np.ndarray) else read_reference(reference)
        if known is None:
            raise UsageError("The scan has no object to compare with.", "Give a reference.")
        return scores_of(align_in_frame(known, self.object, self.frame.origin, self.scan.positions))

    def save(
        self, folder: StrPath, *, overwrite: bool = False, formats: Collection[ProductFormat | str] = ()
    ) -> RunResult:
        """Write product, pictures and report, as ``ptychopinn infer`` does.

        Raises
        ------
        UsageError, ResourceError
            If the folder is refused, or cannot be written.
        """
        return save_reconstruction(folder, self.scan, self, story=self.story, overwrite=overwrite, formats=formats)

    def to_xarray(self) -> Any:
        """An ``xarray.Dataset`` of object, coverage, probe, positions and standard errors.

        The coordinates ``y`` and ``x`` of the object are metres if the pixel size is known, else pixels, in the frame
        of the positions.

        Raises
        ------
        PluginError
            If xarray is not installed.
        """
        pixel = self.scan.metadata.pixel_size_m
        height, width = self.object.shape
        y, x = (
            (first + np.arange(count)) * (pixel or 1.0)
            for first, count in zip(self.frame.origin, (height, width), strict=True)
        )
        plane = ("y", "x")
        arrays: dict[str, tuple[tuple[str, ...], AnyArray]] = {
            "object": (plane, self.object),
            "coverage": (plane, self.coverage),
            "probe": (("mode", "v", "u"), self.probe),
            "positions": (("pattern", "axis"), self.positions),
        }
        if (errors := self.uncertainty) is not None:
            arrays |= {"phase_error": (plane, errors.phase_error), "amplitude_error": (plane, errors.amplitude_error)}
        attributes = {"name": self.scan.name, "unit": "px" if pixel is None else "m", **self.figures}
        return dataset_of_arrays(arrays, {"y": y, "x": x, "axis": ["y", "x"]}, attributes)


def result_of(found: Reconstruction, scan: Scan, story: tuple[str, ...] = ()) -> Result:
    """A reconstruction with its scan."""
    known: Mapping[str, Any] = {one.name: getattr(found, one.name) for one in fields(Reconstruction)}
    return Result(**known, scan=scan, story=story)


def _known_part(part: ObjectPart | str) -> ObjectPart:
    try:
        return ObjectPart(part)
    except ValueError as error:
        raise UsageError(f"'{part}' cannot be drawn.", f"Give one of {', '.join(ObjectPart)}.") from error
