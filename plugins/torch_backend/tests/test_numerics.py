"""Float32 is float32, and what was set before is put back."""

from __future__ import annotations

import pytest
import torch

from ptychopinn_torch.numerics import exact_float32


def settings() -> tuple[bool, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )


@pytest.mark.parametrize("wanted", [True, False])
def test_for_a_while(wanted: bool) -> None:
    """[REC-004]"""
    before = settings()
    with pytest.raises(KeyError), exact_float32(deterministic=wanted):
        assert settings()[0] is wanted
        assert settings()[2] is False
        assert settings()[4] is False
        raise KeyError
    assert settings() == before


def test_what_was_set_before_is_put_back() -> None:
    torch.use_deterministic_algorithms(True, warn_only=False)
    try:
        before = settings()
        with exact_float32(deterministic=False):
            assert not torch.are_deterministic_algorithms_enabled()
        assert settings() == before
    finally:
        torch.use_deterministic_algorithms(False)
