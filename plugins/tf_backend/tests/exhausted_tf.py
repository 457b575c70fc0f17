"""TensorFlow whose memory runs out when it predicts: a plugin for the tests of comparisons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ptychopinn.hookspecs import hookimpl
from ptychopinn.reconstructor import Capability, ReconstructorSpec
from ptychopinn_tf.options import TfOptions
from ptychopinn_tf.reconstructor import TfReconstructor


def fail(*args: Any) -> Any:
    """As TensorFlow does; it is imported where it has been."""
    import tensorflow as tf

    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[16,1,32,32]")


class Tight(TfReconstructor):
    """The first batch does not fit."""

    def _compiled(self, model: Any) -> Callable[..., Any]:
        compiled, calls = super()._compiled(model), 0

        def limited(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            return fail() if calls == 1 else compiled(*args)

        return limited


class Full(TfReconstructor):
    """No batch fits."""

    def _compiled(self, model: Any) -> Callable[..., Any]:
        return fail


class Early(TfReconstructor):
    """Nothing can be made ready."""

    def _compiled(self, model: Any) -> Callable[..., Any]:
        return fail()  # type: ignore[no-any-return]


@hookimpl
def ptychopinn_reconstructors() -> list[ReconstructorSpec]:
    """What this module registers when it is named as an entry point."""
    return [
        ReconstructorSpec(name, "", f"exhausted_tf:{name.title()}", TfOptions, frozenset(Capability))
        for name in ("tight", "full", "early")
    ]
