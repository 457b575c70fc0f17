"""Score a reconstruction against a reference."""

from __future__ import annotations

import logging

import numpy as np

from ptychopinn.atomic import write_bytes, write_json
from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.io import read_scan
from ptychopinn.metrics import MAX_SHIFT_PX, Aligned, Measures, align, scan_box, score
from ptychopinn.product import origin_of, read_product
from ptychopinn.report import attempt, comparison_picture
from ptychopinn.typing import ComplexArray, FloatArray, StrPath
from ptychopinn.workflows import folders
from ptychopinn.workflows.folders import product_file
from ptychopinn.workflows.reference import embed, read_reference

SCORES, PICTURE = "scores.json", "comparison.png"
_log = logging.getLogger(__name__)
_EVALUATION = folders.FolderKind("evaluation", frozenset({SCORES, PICTURE}))


def evaluate_run(
    product_path: StrPath,
    reference_path: StrPath,
    *,
    scan_path: StrPath | None = None,
    reading: ReadOptions | None = None,
    output: StrPath | None = None,
    overwrite: bool = False,
) -> Measures:
    """Score a product against a trusted object inside the box of scan positions, after removing ambiguities.

    Parameters
    ----------
    product_path:
        A Ptychodus product, or a run directory with one.
    reference_path:
        NPZ with ``object`` or ``objectGuess``, or a product; in the frame of the scan's positions.
    scan_path:
        The scan of the product. It gives the place of the product's array in the reference, and the box of positions.
        Without it, arrays of different sizes are assumed to have the same centre.
    output:
        Directory for ``scores.json`` and ``comparison.png``, or None.

    Returns
    -------
    Name to score, as `ptychopinn.metrics.score` defines them. What cannot be computed is NaN, and `Measures.missing`
    says why.

    Raises
    ------
    PtychoPinnError
        If a file cannot be used, or the output directory is refused.
    """
    product = read_product(product_file(product_path))
    reference = read_reference(reference_path)
    if scan_path is not None:
        scan = read_scan(scan_path, **dict(reading or ReadOptions()))
        aligned = align_in_frame(
            reference, product.object, origin_of(product, scan.positions_by_number), scan.positions
        )
    else:
        obj = product.object  # the alignment centres it on the reference
        positions = product.local_positions + (np.array(reference.shape) - np.array(obj.shape)) // 2
        aligned = align(reference, obj, scan_box(positions, reference.shape))
    scores = scores_of(aligned)
    if output is not None:
        with folders.output_folder(output, _EVALUATION, overwrite=overwrite) as folder:
            write_json(folder / SCORES, scores.record)
            if (png := attempt("The picture", lambda: comparison_picture(aligned, scores))) is not None:
                write_bytes(folder / PICTURE, png)
    return scores


def align_in_frame(
    reference: ComplexArray, obj: ComplexArray, origin: tuple[int, int], positions: FloatArray
) -> Aligned:
    """Align an object with a reference in the frame of the positions, inside their box.

    Parameters
    ----------
    reference:
        (H, W) complex; its pixel (0, 0) is the origin of the frame.
    obj:
        (h, w) complex, with pixel (0, 0) at ``origin`` (y, x).
    positions:
        (n, 2) float64 (y, x), pixels.
    """
    return align(reference, embed(reference.shape, obj, origin), scan_box(positions, reference.shape))


def scores_of(aligned: Aligned) -> Measures:
    """The scores of an aligned pair; a warning where pixels or the registration do not count."""
    if aligned.not_finite:
        _log.warning("%d pixels of the reconstruction are not finite and count as 0.", aligned.not_finite)
    if max(map(abs, aligned.shift_px)) > MAX_SHIFT_PX:
        _log.warning(
            "The registration failed: %s px. The scores are of pictures that were not moved.", aligned.shift_px
        )
    return score(aligned)
