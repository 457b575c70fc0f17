"""The object of the passes with its momentum, whole or in tiles."""

from __future__ import annotations

from ptychopinn.arrays import Array, ArrayLibrary
from ptychopinn.solvers.displacement import Displacement
from ptychopinn.solvers.slow_phase import multiply_by_phase
from ptychopinn.tiles import Tile, Tiling


class ObjectState:
    """An object, or a tile of it, with its momentum.

    Attributes
    ----------
    object, velocity, last:
        (H, W) complex64 each; ``last`` is the object when momentum was applied last.
    library:
        Library of the arrays.
    """

    def __init__(self, obj: Array, velocity: Array, last: Array, library: ArrayLibrary) -> None:
        self.object, self.velocity, self.last, self.library = obj, velocity, last, library

    @classmethod
    def at_rest(cls, obj: Array, library: ArrayLibrary) -> ObjectState:
        """An object without momentum; the object is changed in place."""
        xp = library.xp
        return cls(obj, xp.zeros_like(obj), xp.asarray(obj, copy=True), library)

    def load(self, tiling: Tiling, tile: Tile) -> ObjectState:
        """The part of a tile, on the computing library; the state itself if the object is not in tiles."""
        if tiling.is_whole:
            return self
        obj, velocity, last = (tiling.load(tile, array) for array in (self.object, self.velocity, self.last))
        return ObjectState(obj, velocity, last, tiling.library)

    def store(self, tiling: Tiling, tile: Tile, part: ObjectState) -> None:
        """Write the result of `load` back."""
        if part is not self:
            for name in ("object", "velocity", "last"):
                setattr(self, name, tiling.store(tile, getattr(self, name), getattr(part, name)))

    def apply_momentum(self, momentum: float) -> None:
        """Repeat a fraction of the object's change since the last call."""

        def move(obj: Array, velocity: Array, last: Array) -> tuple[Array, Array, Array]:
            velocity *= momentum
            velocity += obj
            velocity -= last
            obj += momentum * velocity
            return obj, velocity, obj

        self.object, self.velocity, self.last = self.library.by_rows(move, self.object, self.velocity, self.last)

    def multiply_by_phase(self, phase: Array) -> None:
        """Multiply object and momentum by ``exp(i phase)``, (H, W) float32."""
        self.object, self.velocity, self.last = (
            multiply_by_phase(array, phase, self.library) for array in (self.object, self.velocity, self.last)
        )

    def displace(self, displacement: Displacement) -> None:
        """Displace the object; its velocity is too small for that to matter."""
        for name in ("object", "last"):
            setattr(self, name, displacement.apply(getattr(self, name), self.library))
