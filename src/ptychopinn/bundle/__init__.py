"""The model archive: a zip of a JSON manifest and HDF5 tensors. Opening one runs nothing that it holds.

``manifest.json`` says what the model is and who wrote it; ``weights.h5`` holds plain arrays under framework-neutral
names ("encoder/0/weight"). Training checkpoints are of the same kind, with groups of their own beside the weights
("optimizer/..."). An archive from a stranger is checked before anything of it is unpacked: members, names, sizes and
links.
"""

from ptychopinn.bundle.archive import Bundle, read_bundle, read_manifest, verify_bundle, write_bundle
from ptychopinn.bundle.manifest import (
    FORMAT_VERSION,
    ArchiveKind,
    Manifest,
    ScalingRule,
    TrainingSummary,
    Writer,
    writer_named,
)
from ptychopinn.bundle.tensors import HISTORY

__all__ = [
    "FORMAT_VERSION",
    "HISTORY",
    "ArchiveKind",
    "Bundle",
    "Manifest",
    "ScalingRule",
    "TrainingSummary",
    "Writer",
    "read_bundle",
    "read_manifest",
    "verify_bundle",
    "write_bundle",
    "writer_named",
]
