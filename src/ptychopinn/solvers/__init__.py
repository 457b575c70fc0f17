"""Classical solvers: reconstruct a scan without a network."""

from ptychopinn.solvers.classical import EPIE, RPIE
from ptychopinn.solvers.epie import EPIEResult, epie, frame_of, refine_probe
from ptychopinn.solvers.gauge import register_probe
from ptychopinn.solvers.probe import ProbeChoice, choose_probe

__all__ = [
    "EPIE",
    "RPIE",
    "EPIEResult",
    "ProbeChoice",
    "choose_probe",
    "epie",
    "frame_of",
    "refine_probe",
    "register_probe",
]
