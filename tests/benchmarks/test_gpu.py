"""The benchmark of a card measures what it says, within its time, and says what it leaves out."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import gpu
import pytest


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lightning_fabric") is None, reason="Lightning Fabric is not installed")
def test_a_quick_run_on_the_cpu_measures_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--json", str(tmp_path / "a.json"), "--markdown", str(tmp_path / "a.md")]
    start = time.monotonic()
    assert gpu.main(["--device", "cpu", "--quick", "--seconds", "110", *files]) == 0
    assert time.monotonic() - start < 120
    whole = json.loads((tmp_path / "a.json").read_text())
    found = {part.name: [one for one in whole["results"] if one["part"] == part.name] for part in gpu.PARTS}
    assert [one for one in whole["results"] if "error" in one or ("left_out" in one and one["part"] != "star")] == []
    assert found["star"] == [{"part": "star", "left_out": "--star was not given"}]
    rates = {one["what"]: one for one in found["rates"]}
    assert set(rates) == {
        *("matrix product, float32", "copy", "training", "training, simulated patterns", "prediction alone"),
        *("file to object", "file to object, 2 passes", "file to object, overlap 0.4, 1 pass"),
        *("a pass, object only", "a pass, probe and positions free"),
    }
    assert all(one["value"] > 0 for one in rates.values())
    assert 0 < rates["prediction alone"]["of_product"] < 1
    assert 0 < rates["a pass, object only"]["of_copy"] < 1
    (quality,) = found["quality"]
    assert quality["2_passes_nrmse"] < quality["alone_nrmse"]
    agreement = {one["what"]: one["largest"] for one in found["agreement"]}
    assert {"prediction", "object", "object, 2 passes, probe and positions free"} < set(agreement)
    assert max(agreement.values()) < 1e-3
    (tests,) = found["tests"]
    assert tests["passed"] + tests["skipped"] >= 18
    assert tests["failed"] == tests["errors"] == 0
    assert "torch" in whole["machine"]
    assert (tmp_path / "a.md").read_text() == capsys.readouterr().out


def test_no_part_begins_without_time(capsys: pytest.CaptureFixture[str]) -> None:
    """And the table says so."""
    assert gpu.main(["--device", "cpu", "--seconds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("s were left" in line for line in lines) == 4
    assert "| --star was not given |" in lines


@pytest.mark.slow
def test_what_overruns_is_ended_with_its_children(tmp_path: Path) -> None:
    code = "import subprocess, sys; print('begun', flush=True); subprocess.run([sys.executable, '-c', 'input()'])"
    pipe = "import os; os.dup2(os.pipe()[0], 0);"
    start = time.monotonic()
    ended = gpu.run_within(
        [sys.executable, "-c", pipe + code], 5.0, tmp_path / "out", tmp_path / "err", env=dict(os.environ)
    )
    assert ended is None
    assert time.monotonic() - start < 15
    assert (tmp_path / "out").read_text() == "begun\n"
    quick = gpu.run_within([sys.executable, "-c", "exit(3)"], 30, tmp_path / "out", tmp_path / "err", env={})
    assert quick == 3


@pytest.mark.slow
def test_wheels_are_installed_offline(tmp_path: Path) -> None:
    """Our own and what is missing; not what is there."""
    wheels, target = tmp_path / "wheels", tmp_path / "packages"
    wheels.mkdir()
    for name in ("ptychopinn_of_a_test", "missing_in_every_place", "numpy"):
        info = f"{name}-1.0.dist-info"
        with zipfile.ZipFile(wheels / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("this environment has no pip")
    gpu.install_wheels(wheels, target)
    assert {path.name for path in target.iterdir() if path.suffix == ""} == {
        "ptychopinn_of_a_test",
        "missing_in_every_place",
    }
    (wheels / "broken-1.0-py3-none-any.whl").write_text("no zip")
    with pytest.raises(SystemExit, match="cannot be installed"):
        gpu.install_wheels(wheels, target)


def test_a_checkout_is_known_as_if_it_were_installed(tmp_path: Path) -> None:
    sources = gpu.describe_checkout(tmp_path)
    assert all(path.is_dir() for path in sources)
    search = os.pathsep.join(map(str, (tmp_path, *sources)))
    code = "from ptychopinn.plugins import discover; print(*sorted(discover().specs))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import site, sys; sys.path += {sys.path!r}; {code}"],
        env={"PYTHONPATH": search},
        capture_output=True,
        text=True,
    )
    assert {"tf", "torch"} <= set(done.stdout.split()), done.stderr


def test_the_table_has_a_note_for_what_failed() -> None:
    whole = {
        "date": "2026-11-26T07:00:00",
        "seconds": 12.3,
        "arguments": {"device": "cuda"},
        "machine": {"card": "NVIDIA H200", "torch": "2.11"},
        "results": [
            {"part": "rates", "what": "training", "value": 1234.5, "unit": "patterns/s", "stages": ["a 1", "b 2"]},
            {"part": "rates", "what": "copy", "error": "RuntimeError: no"},
            {"part": "star", "left_out": "--star was not given"},
        ],
    }
    lines = gpu.markdown(whole).splitlines()
    assert lines[0] == "# NVIDIA H200, 2026-11-26"
    assert lines[6:10] == [
        "| what | value | unit | stages | note |",
        "|---|---|---|---|---|",
        "| training | 1,234 | patterns/s | a 1, b 2 |  |",
        "| copy |  |  |  | RuntimeError: no |",
    ]
    assert lines[-1] == "| --star was not given |"


def test_what_is_not_measured_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, named in ((["--parts", "rates,lunch"], "lunch"), (["--wheels", str(tmp_path)], "no wheel in")):
        with pytest.raises(SystemExit):
            gpu.main(arguments)
        assert named in capsys.readouterr().err


def test_every_part_has_a_share_of_the_time() -> None:
    assert sum(part.share for part in gpu.PARTS) == pytest.approx(1)
