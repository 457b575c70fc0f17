"""What the loss needs of a framework beside the operators of its tensors."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

Tensor: TypeAlias = Any  # of whichever framework; its +, -, *, /, ** and abs() are those of NumPy, and so is slicing
Axes: TypeAlias = tuple[int, ...]


class Operations(Protocol):
    """Functions of tensors; a backend's module of these functions is one.

    Where a complex tensor meets a real one, the formulas pass the real one through `as_complex`.
    """

    def sum(self, values: Tensor, axes: Axes | None = None, *, keepdims: bool = False) -> Tensor:
        """Their sum over some axes, or over all."""
        ...

    def mean(self, values: Tensor, axes: Axes) -> Tensor:
        """Their mean over some axes."""
        ...

    def max(self, values: Tensor, axes: Axes, *, keepdims: bool = False) -> Tensor:
        """Their largest over some axes."""
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
        """Tensors of one shape along a new first axis."""
        ...

    def stop_gradient(self, values: Tensor, /) -> Tensor:
        """The same numbers, through which no gradient flows."""
        ...
