"""Simulate objects, probes, scans and training patterns from seeds."""

from ptychopinn.data.ground_truth import true_patches
from ptychopinn.simulate.object_stream import ObjectStream, ObjectStreamOptions
from ptychopinn.simulate.objects import TRAINING_KINDS, simulate_object
from ptychopinn.simulate.probes import probe_width_px, simulate_probe
from ptychopinn.simulate.scan import SimulatedTruth, simulate_scan, simulated_truth
from ptychopinn.simulate.trajectories import scan_positions

__all__ = [
    "TRAINING_KINDS",
    "ObjectStream",
    "ObjectStreamOptions",
    "SimulatedTruth",
    "probe_width_px",
    "scan_positions",
    "simulate_object",
    "simulate_probe",
    "simulate_scan",
    "simulated_truth",
    "true_patches",
]
