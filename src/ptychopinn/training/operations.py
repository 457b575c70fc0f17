"""Operations that the loss needs from a framework, besides the operators of tensors."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

Tensor: TypeAlias = Any  # of any framework; +, -, *, /, **, abs() and slicing work as in NumPy
Axes: TypeAlias = tuple[int, ...]


class Operations(Protocol):
    """Functions of tensors; implemented by a module of the backend.

    The formulas pass real tensors through `as_complex` before they combine them with complex ones.
    """

    def sum(self, values: Tensor, axes: Axes | None = None, *, keepdims: bool = False) -> Tensor:
        """The sum over some axes, or over all."""
        ...

    def mean(self, values: Tensor, axes: Axes) -> Tensor:
        """The mean over some axes."""
        ...

    def max(self, values: Tensor, axes: Axes, *, keepdims: bool = False) -> Tensor:
        """The maximum over some axes."""
        ...

    def sqrt(self, values: Tensor, /) -> Tensor:
        """Square roots of real numbers."""
        ...

    def log(self, values: Tensor, /) -> Tensor:
        """Natural logarithms of real numbers."""
        ...

    def angle(self, values: Tensor, /) -> Tensor:
        """Angles in rad of (..., 2) real and imaginary parts: (...,)."""
        ...

    def conj(self, values: Tensor, /) -> Tensor:
        """Complex conjugates."""
        ...

    def as_complex(self, values: Tensor, /) -> Tensor:
        """Real numbers that complex tensors can be multiplied with and divided by."""
        ...

    def as_real(self, values: Tensor, /) -> Tensor:
        """Complex (...,) to (..., 2), real and imaginary parts."""
        ...

    def stack(self, values: list[Tensor], /) -> Tensor:
        """Stack tensors along a new first axis."""
        ...

    def where(self, condition: Tensor, one: Tensor | float, other: Tensor | float, /) -> Tensor:
        """``one`` where a condition holds, else ``other``; one of the two is a tensor."""
        ...

    def stop_gradient(self, values: Tensor, /) -> Tensor:
        """The same numbers without gradient."""
        ...
