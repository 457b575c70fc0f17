"""The model archive: a zip of a JSON manifest and HDF5 tensors. Opening one executes nothing.

``manifest.json`` describes the model and its writer; ``weights.h5`` holds arrays under framework-neutral names
("encoder/0/weight"). Training checkpoints have the same format with additional groups ("optimizer/..."). Archives are
untrusted: members, names, sizes and links are checked before anything is unpacked.
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
