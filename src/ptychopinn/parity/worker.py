"""One side of a parity check in a process of its own: ``main(FOLDER)`` reads ``task.json``, writes ``stages.npz``."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import numpy as np

from ptychopinn.comparison.files import read_json
from ptychopinn.config.infer import InferConfig
from ptychopinn.data.npz import read_scan
from ptychopinn.errors import PtychoPinnError
from ptychopinn.parity.stages import stages_of
from ptychopinn.workflows import load_reconstructor


def main(folder: str) -> int:
    """Compute one side; returns an exit code, and prints the reason of a failure last."""
    home = Path(folder)
    task = read_json(home / "task.json")
    try:
        data = read_scan(task["data"], **task["reading"])
        batch = data.select(np.asarray(task["indices"]))
        model = load_reconstructor(task["model"], backend=task["backend"], options=task["options"])
        np.savez(home / "stages.npz", **stages_of(model, batch, InferConfig()))  # type: ignore[arg-type]
    except PtychoPinnError as error:
        traceback.print_exc()
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0
