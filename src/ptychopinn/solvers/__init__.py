"""Classical solvers: an object from a scan, without a network."""

from ptychopinn.solvers.epie import EPIE, EPIEResult, epie, frame_of, refine_probe
from ptychopinn.solvers.gauge import register_probe
from ptychopinn.solvers.probe import ProbeChoice, choose_probe

__all__ = ["EPIE", "EPIEResult", "ProbeChoice", "choose_probe", "epie", "frame_of", "refine_probe", "register_probe"]
