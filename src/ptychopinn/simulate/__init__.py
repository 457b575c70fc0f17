"""Simulated objects, probes, scans and training patches, all seeded."""

from ptychopinn.data.truth import true_patches
from ptychopinn.simulate.objects import TRAINING_KINDS, simulate_object
from ptychopinn.simulate.probes import probe_width_px, simulate_probe
from ptychopinn.simulate.scan import simulate_scan
from ptychopinn.simulate.scans import scan_positions
from ptychopinn.simulate.stream import ObjectStream

__all__ = [
    "TRAINING_KINDS",
    "ObjectStream",
    "probe_width_px",
    "scan_positions",
    "simulate_object",
    "simulate_probe",
    "simulate_scan",
    "true_patches",
]
