"""Score a reconstruction against a reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ptychopinn.atomic import written_aside
from ptychopinn.data.npz import read_object, read_scan
from ptychopinn.metrics import align, box_of, score
from ptychopinn.product import read_product
from ptychopinn.report import comparison_picture
from ptychopinn.typing import ComplexArray, StrPath
from ptychopinn.workflows import _folder


def evaluate_run(
    product_path: StrPath,
    reference_path: StrPath,
    *,
    scan_path: StrPath | None = None,
    output: StrPath | None = None,
    overwrite: bool = False,
) -> dict[str, float]:
    """Score a product against a trusted object, ambiguities removed, inside the box of scan positions.

    Parameters
    ----------
    product_path:
        A Ptychodus product.
    reference_path:
        NPZ with ``object`` or ``objectGuess``, or a product; in the frame of the scan's positions.
    scan_path:
        NPZ whose positions bound the box; None takes the product's own.
    output:
        Directory for ``scores.json`` and ``comparison.png``, or None.
    overwrite:
        Replace what an earlier run left there.

    Returns
    -------
    Name to score, as `ptychopinn.metrics.score` defines them.
    """
    product = read_product(product_path)
    reference = _reference(reference_path)
    if scan_path is not None:
        positions = read_scan(scan_path).positions
    else:
        # A product's array is centred on the reference's when their sizes differ, as the alignment centres it.
        gap = (np.array(reference.shape) - np.array(product.object.shape)) // 2
        positions = product.local_positions + gap
    aligned = align(reference, product.object, box_of(positions, reference.shape))
    scores = {name: float(value) for name, value in score(aligned).items()}
    if output is not None:
        folder = _folder.prepare_folder(output, overwrite=overwrite)
        with written_aside(folder / "scores.json") as aside:
            aside.write_text(json.dumps(scores, indent=2) + "\n", "utf-8")
        with written_aside(folder / "comparison.png") as aside:
            aside.write_bytes(comparison_picture(aligned, scores))
    return scores


def _reference(path: StrPath) -> ComplexArray:
    if Path(path).suffix.lower() in (".h5", ".hdf5"):
        return read_product(path).object
    return read_object(path)
