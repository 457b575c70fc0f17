"""Convert the state of a training to named tensors and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ptychopinn.training import checkpoint_tensors
from ptychopinn.typing import AnyArray
from ptychopinn_tf._tensorflow import tf


def variable_arrays(variables: Mapping[str, tf.Variable], group: str = "") -> dict[str, AnyArray]:
    """Copies of variables, under ``group/`` if it has a name."""
    prefix = f"{group}/" if group else ""
    return {prefix + name: np.atleast_1d(variable.numpy()).copy() for name, variable in variables.items()}


def load_variables(variables: Mapping[str, tf.Variable], arrays: Mapping[str, AnyArray], group: str = "") -> None:
    """Restore `variable_arrays`. Raises ArchiveError if a tensor is missing or of another shape."""
    prefix = f"{group}/" if group else ""
    shapes = {prefix + name: tuple(variable.shape) for name, variable in variables.items()}
    tensors = checkpoint_tensors(arrays, shapes)
    for name, variable in variables.items():
        variable.assign(tensors[prefix + name])
