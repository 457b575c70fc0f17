"""Check the named tensors of archives and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

from ptychopinn.errors import ArchiveError
from ptychopinn.typing import AnyArray

NETWORK = "network/"


def network_tensors(arrays: Mapping[str, AnyArray], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, AnyArray]:
    """The tensors of a network from the tensors of an archive.

    ``shapes`` are the expected names, without ``network/``, and shapes in the archive's layout.

    Raises
    ------
    ArchiveError
        If tensors are missing, of another shape, or of another network.
    """
    found = {name.removeprefix(NETWORK): array for name, array in arrays.items() if name.startswith(NETWORK)}
    problems = [f"'{name}' is missing" for name in shapes if name not in found]
    problems += [f"'{name}' is of no use" for name in found if name not in shapes]
    problems += [
        f"'{name}' has the shape {found[name].shape}, not {shape}"
        for name, shape in shapes.items()
        if name in found and found[name].shape != shape
    ]
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise ArchiveError(f"The archive's tensors do not fit its configuration: {shown}.", "Save the model again.")
    return found


def checkpoint_tensors(arrays: Mapping[str, AnyArray], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, AnyArray]:
    """Named tensors of a checkpoint, in the given shapes (a checkpoint stores scalars as (1,)).

    Raises ArchiveError if a tensor is missing or of another size.
    """
    found = {}
    for name, shape in shapes.items():
        array = arrays.get(name)
        if array is None or array.shape != (shape or (1,)):
            raise ArchiveError(
                f"The checkpoint does not fit: '{name}' is "
                + ("missing." if array is None else f"of shape {array.shape}, not {shape or (1,)}."),
                "Resume with the configuration of the training, or start again with --overwrite.",
            )
        found[name] = array.reshape(shape)
    return found
