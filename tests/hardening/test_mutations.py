"""Thousands of harmed files: each is refused with a remedy, or read. Requirements: specs/16-hardening.md."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hardening.kit import configs, scans
from hardening.kit.pool import Tally, run_cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptychopinn.bundle.manifest import parse_manifest
from ptychopinn.data.checks import check_scan
from ptychopinn.errors import PtychoPinnError

CASES = {  # short, long
    "scans": (150, 1200),
    "archives": (150, 700),
    "products": (100, 700),
    "configs": (60, 500),
    "formats": (120, 3700),
}


@pytest.mark.parametrize("kind", CASES)
def test_no_file_does_harm(kind: str, long: bool, figure: Callable[[str], None], tmp_path: Path) -> None:
    """[HARD-001] [HARD-002] [HARD-003] [HARD-004]"""
    tally = run_cases([(kind, number) for number in range(CASES[kind][long])], tmp_path)
    figure(f"mutated {kind}: {tally}")
    assert not tally.failures, "\n\n".join(
        f"{f['kind']} {f['number']} ({f.get('what')}) {f['outcome']}:\n{f['error']}" for f in tally.failures[:5]
    )
    assert tally.outcomes["refused"] > CASES[kind][long] / 4
    assert tally.outcomes["handled"] > 0
    assert not list(tmp_path.rglob("PWNED"))
    assert {path.name for path in tmp_path.iterdir()} <= {"case", "scratch", "stderr"}


@pytest.mark.parametrize(
    ("number", "outcome"),
    [(0, "raised"), (1, "hung"), (2, "died"), (3, "raised"), (4, "acted"), (5, "acted"), (6, "ill told"), (7, "acted")],
)
def test_the_worker_notices(number: int, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of another kind, a hang, a crash, too much memory, code run, a file elsewhere, no remedy, a pickle."""
    if outcome == "hung":  # the others may take as long as a busy machine needs
        monkeypatch.setattr("hardening.kit.pool.SECONDS_A_CASE", 1.0)
        monkeypatch.setattr("hardening.kit.pool._FIRST_SECONDS", 10.0)
    tally: Tally = run_cases([("forbidden_actions", number)], tmp_path)
    assert [f["outcome"] for f in tally.failures] == [outcome], tally.failures


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
PARSING = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@contextmanager
def assert_remedy() -> Iterator[None]:
    """Whatever is raised says what to do."""
    refusal = None
    try:
        yield
    except PtychoPinnError as error:
        refusal = error
    assert refusal is None or (refusal.remedy and len(str(refusal)) < 4000)


@PARSING
@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_as_a_manifest(content: bytes) -> None:
    """[HARD-001]"""
    with assert_remedy():
        parse_manifest(content, source="here")


@PARSING
@given(
    st.text(max_size=200)
    | st.dictionaries(st.sampled_from(["train", "model", "backend", "x"]), VALUES, max_size=3).map(json.dumps)
)
def test_any_text_as_a_configuration(tmp_path: Path, text: str) -> None:
    """[HARD-001]"""
    for name in ("c.yaml", "c.json"):
        (tmp_path / name).write_text(text, "utf-8", errors="surrogatepass")
        with assert_remedy():
            configs.open_file(tmp_path / name, tmp_path)


@PARSING
@given(header=st.text(st.characters(max_codepoint=255), max_size=120), body=st.binary(max_size=64))
def test_any_text_as_the_header_of_an_array(tmp_path: Path, header: str, body: bytes) -> None:
    """[HARD-001]"""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        text = header.encode("latin1")
        archive.writestr("diffraction.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body)
    (tmp_path / "scan.npz").write_bytes(buffer.getvalue())
    assert any(p.key == "diffraction" and p.remedy for p in check_scan(tmp_path / "scan.npz"))


@PARSING
@given(VALUES)
def test_any_json_as_metadata(tmp_path: Path, value: object) -> None:
    """[HARD-001]"""
    arrays = {**scans.valid(), "_metadata": np.array(json.dumps(value))}
    np.savez(tmp_path / "scan.npz", **arrays)
    (tmp_path / "target").mkdir(exist_ok=True)
    with assert_remedy():
        scans.open_file(tmp_path / "scan.npz", tmp_path / "target")
