"""Photon energy, pixel size and dose of a scan, and where those of two scans differ."""

from __future__ import annotations

from pydantic import Field

from ptychopinn.config import Config
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.scaling import Scaling

_SAME_OPTICS = 1.1  # a factor: energies and pixel sizes within it are the same
_SAME_DOSE = 10.0  # likewise of photons a pattern


class ScanConditions(Config):
    """Conditions of a scan, as far as they are known."""

    energy_eV: float | None = Field(None, gt=0, description="Photon energy, eV.")  # noqa: N815 - the unit's spelling
    pixel_size_m: float | None = Field(None, gt=0, description="Object pixel size, metres.")
    photons: float | None = Field(None, gt=0, description="Mean photons of a pattern.")


def conditions_of(data: ScanDataset, scaling: Scaling) -> ScanConditions:
    """The conditions of a scan; an assumed dose is not known."""
    metadata = data.metadata
    return ScanConditions(
        energy_eV=metadata.probe_energy_eV,
        pixel_size_m=metadata.pixel_size_m,
        photons=None if metadata.nphotons_assumed else scaling.mean_counts,
    )


def describe_differences(of_model: ScanConditions, of_scan: ScanConditions) -> str | None:
    """What to say of a network on a scan of other conditions than those that it was trained under.

    Returns
    -------
    Sentences with both values of what differs by more than a factor of 1.1 (energy, pixel size) or 10 (photons), and
    what that means; None if nothing does, as far as both are known.
    """
    compared = (
        (of_model.energy_eV, of_scan.energy_eV, _SAME_OPTICS, _describe_energy),
        (of_model.pixel_size_m, of_scan.pixel_size_m, _SAME_OPTICS, _describe_pixels),
        (of_model.photons, of_scan.photons, _SAME_DOSE, _describe_dose),
    )
    found = [
        describe(model, scan)
        for model, scan, same, describe in compared
        if model is not None and scan is not None and not 1 / same <= scan / model <= same
    ]
    if not found:
        return None
    return (
        f"The model was trained under other conditions: {'; '.join(found)}. See whether the result explains the data; "
        "if not, train on this scan, or continue from the model (train --from)."
    )


def _describe_energy(model: float, scan: float) -> str:
    return (
        f"photons of {model / 1e3:.4g} keV, here {scan / 1e3:.4g} keV, for which the object has another contrast and "
        "the optics another probe"
    )


def _describe_pixels(model: float, scan: float) -> str:
    return f"object pixels of {model * 1e9:.4g} nm, here {scan * 1e9:.4g} nm, so features have another size in pixels"


def _describe_dose(model: float, scan: float) -> str:
    noise = "patterns are noisier than any it saw" if scan < model else "it did not learn to use so many"
    return f"{model:.2g} photons a pattern, here {scan:.2g}: {noise}"
