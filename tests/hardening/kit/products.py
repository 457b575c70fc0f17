"""Mutated products."""

from __future__ import annotations

import random
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from hardening.kit import tensors
from hardening.kit.mutation import Mutation, mangle, pick, strange_path

from ptychopinn.product import Product, ProductFormat, read_product, write_product, write_product_as

SUFFIX = ".h5"
FORMS = ("h5", "h5", "cxi", "nexus")


@lru_cache(maxsize=3)
def whole(form: str = "h5") -> bytes:
    """A product that is not mutated: of Ptychodus, or CXI or NeXus."""
    rng = np.random.default_rng(5)
    product = Product(
        name="whole",
        positions=rng.uniform(10, 40, (9, 2)),
        probe=rng.normal(size=(2, 16, 16)) + 0j,
        object=rng.normal(size=(50, 51)) + 0j,
        pixel_size_m=(1e-8, 1e-8),
        losses=((1, 0.5), (2, 0.25)),
        coverage=np.ones((50, 51), np.float32),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "whole.h5"
        if form == "h5":
            write_product(path, product)
        else:
            write_product_as(path, product, ProductFormat(form))
        return path.read_bytes()


def damage(rng: random.Random, path: Path) -> str:
    """Bytes of the file."""
    form = pick(rng, FORMS)
    how, content = mangle(rng, whole(form))
    path.write_bytes(content)
    return f"{form} {how}"


def restructure(rng: random.Random, path: Path) -> str:
    """Its structure."""
    form = pick(rng, FORMS)
    how, content = tensors.harm(rng, whole(form))
    path.write_bytes(content)
    return f"{form} {how}"


MUTATIONS: tuple[Mutation, ...] = (*(damage,) * 6, *(restructure,) * 6, strange_path)


def open_file(path: Path, target: Path) -> None:
    """Read; what is read can be written again."""
    product = read_product(path)
    assert np.isfinite(product.positions).all()
    write_product(target / "again.h5", product)
