"""Training checkpoints: what is TensorFlow's own; the rest is `backend_suite.checkpoint`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from backend_suite.checkpoint import *  # noqa: F403

from ptychopinn.errors import ArchiveError
from ptychopinn_tf.checkpoint import load_variables, variable_arrays


def test_variables_come_back_as_they_were() -> None:
    made = {"a/weight": tf.Variable([[1.0, 2.0]]), "step": tf.Variable(7, dtype=tf.int64)}
    arrays = variable_arrays(made, "net")
    assert {name: array.shape for name, array in arrays.items()} == {"net/a/weight": (1, 2), "net/step": (1,)}
    made["a/weight"].assign([[5.0, 5.0]])
    made["step"].assign(9)
    load_variables(made, arrays, "net")
    assert (made["a/weight"].numpy().tolist(), int(made["step"])) == ([[1, 2]], 7)


@pytest.mark.parametrize(("change", "message"), [(None, "missing"), (np.zeros(7), r"of shape \(7,\), not \(1, 2\)")])
def test_a_tensor_that_does_not_fit_is_named(change: Any, message: str) -> None:
    made = {"weight": tf.Variable([[1.0, 2.0]])}
    arrays = {} if change is None else {"net/weight": change}
    with pytest.raises(ArchiveError, match=rf"'net/weight' is {message}"):
        load_variables(made, arrays, "net")
