"""Tiny trainings in PyTorch, for tests and for the processes that they start."""

from __future__ import annotations

from pathlib import Path

import torch
from backend_suite.fits import Fits

from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.reconstructor import TorchReconstructor

torch.set_num_threads(1)  # the tests share the machine; tiny networks gain nothing from threads

FITS = Fits(TorchReconstructor, TorchOptions, module=__name__, folder=Path(__file__).parent)
new, fit_to = FITS.new, FITS.fit_to
