"""What is registered, and what importing it brings along. Requirements: specs/07-reconstructor.md."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from ptychopinn.plugins import discover
from ptychopinn.reconstructor import Capability
from ptychopinn_tf.options import TfOptions
from ptychopinn_tf.plugin import ptychopinn_reconstructors

(SPEC,) = ptychopinn_reconstructors()


def modules_after(code: str) -> set[str]:
    """Top-level names of what is imported in a fresh process."""
    code += "; import sys; print(' '.join(sorted({m.partition('.')[0] for m in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_it_is_found_by_its_name() -> None:
    """[PLUG-001] [PLUG-006] And by the name of the predecessor."""
    registry = discover()
    assert registry.get("tf") == registry.get("tensorflow") == SPEC
    assert registry.distributions["tf"].startswith("ptychopinn-tf ")


def test_its_spec_leaves_nothing_out() -> None:
    """[REC-011] Nothing of the contract is left out, so nothing has to be refused."""
    assert SPEC.capabilities == frozenset(Capability)
    assert SPEC.load_class().__name__ == "TfReconstructor"


def test_listing_it_imports_no_framework() -> None:
    """[PLUG-002] [PLUG-008]"""
    heavy = {"tensorflow", "keras", "torch", "lightning_fabric", "jax"}
    code = (
        "from ptychopinn_tf import plugin, options; from ptychopinn.plugins import discover as d, capability_table as t"
    )
    assert not modules_after(f"{code}; t(d())") & heavy


def test_nothing_of_it_imports_another_framework() -> None:
    """Where PyTorch is not installed, the whole session proves it; where it is, this does."""
    modules = "arrays batches checkpoint cnn devices forward model module network operations optimizer options plugin"
    names = [*modules.split(), "ranks", "reconstructor", "sources", "tensors", "training"]
    code = "; ".join(f"import ptychopinn_tf.{name}" for name in names)
    assert not modules_after(code) & {"torch", "lightning_fabric", "jax", "ptychopinn_torch"}


def test_the_terminal_stays_quiet() -> None:
    """Neither loading nor computing writes notes about the machine; the environment is as it was."""
    code = """
import os
from ptychopinn_tf._tensorflow import tf
assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ
print(tf.function(lambda x: tf.linalg.matmul(x, x), jit_compile=True)(tf.ones((8, 8)))[0, 0].numpy())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("8.0", "")


def test_what_others_write_while_it_loads_is_not_lost() -> None:
    code = """
import os
from ptychopinn_tf._tensorflow import quiet
with quiet():
    os.write(2, b"mine\\nI0000 00:00:1795171192.519816   17888 port.cc:153] theirs\\n")
    os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "mine\n"


def test_options_that_contradict_are_refused() -> None:
    """[REC-011]"""
    with pytest.raises(ValidationError, match="devices is 2 and accelerator cuda:1"):
        TfOptions(devices=2, accelerator="cuda:1")
    with pytest.raises(ValidationError, match="gpu_memory_limit_mb is .* no effect with accelerator cpu"):
        TfOptions(accelerator="cpu", gpu_memory_limit_mb=1000)
