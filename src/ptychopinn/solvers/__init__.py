"""Classical solvers: an object from a scan, without a network."""

from ptychopinn.solvers.epie import EPIE, EPIEResult, epie, frame_of, refine_probe

__all__ = ["EPIE", "EPIEResult", "epie", "frame_of", "refine_probe"]
