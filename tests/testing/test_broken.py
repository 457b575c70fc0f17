"""The kit finds what is wrong with a backend, by the test meant for it. Requirements: specs/11-conformance.md."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

import pytest
from broken_backends import BROKEN

from ptychopinn.config import ModelConfig, TrainConfig
from ptychopinn.testing import CrossBackendConformance, ForwardConformance, ReconstructorConformance
from ptychopinn.testing.settings import MODEL_CHANGES, TESTED_ELSEWHERE, TRAIN_CHANGES

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("broken")]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FORWARD = "test_the_forward_model_is_that_of_the_core"
CROSS = "test_an_archive_predicts_the_same_in_the_other"
# Suite of broken_suites.py to the tests that must fail in it.
MEANT: dict[str, frozenset[str]] = {
    **{f"Test{one.cls.__name__}": one.fails for one in BROKEN.values()},
    "TestHealthySettings": frozenset(),
    "TestRegistersAnother": frozenset({"test_it_is_found_by_its_name"}),
    "TestImportsItsFramework": frozenset({"test_listing_it_imports_no_framework"}),
    "TestForwardHealthy": frozenset(),
    "TestForwardCorner": frozenset({FORWARD}),
    "TestForwardHalfPixel": frozenset({FORWARD}),
    "TestForwardSwapped": frozenset({FORWARD}),
    "TestCrossHealthy": frozenset(),
    "TestCrossOtherLayout": frozenset({CROSS}),
    "TestCrossMissing": frozenset(),
}

Outcomes = dict[str, dict[str, dict[str, str]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the suites run: an empty folder."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Outcomes:
    """Suite to outcome ("passed", "failed", "skipped") to the tests that ended so, with their messages."""
    others = tmp_path_factory.mktemp("report")
    report = others / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", f"--junitxml={report}"]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "--basetemp", str(others / "base")]
    done = subprocess.run(
        [*command, str(HERE / "broken_suites.py")], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr
    found: Outcomes = defaultdict(lambda: defaultdict(dict))
    for case in ElementTree.parse(report).iter("testcase"):
        suite = case.attrib["classname"].rpartition(".")[2]
        problems = [child for child in case if child.tag in ("failure", "error", "skipped")]
        outcome = "passed" if not problems else "skipped" if problems[0].tag == "skipped" else "failed"
        message = " ".join(f"{p.attrib.get('message', '')} {p.text or ''}" for p in problems)
        found[suite][outcome][case.attrib["name"].partition("[")[0]] = message
    return found


def test_every_suite_has_run(outcomes: Outcomes) -> None:
    assert set(outcomes) == set(MEANT)


@pytest.mark.parametrize("suite", sorted(MEANT))
def test_it_fails_the_test_that_is_meant_for_it(outcomes: Outcomes, suite: str) -> None:
    """[CONF-004] And no other."""
    failed = outcomes[suite]["failed"]
    assert set(failed) == MEANT[suite], "\n".join(failed[name] for name in set(failed) - MEANT[suite])


@pytest.mark.parametrize(
    ("suite", "told"),
    [
        ("TestIgnoresASetting", "weight_averaging was accepted and changed nothing"),
        ("TestIgnoresNllWeight", "nll_weight was accepted and changed nothing"),
        ("TestIgnoresGradientClipAlgorithm", "gradient_clip_algorithm was accepted and changed nothing"),
        ("TestIgnoresSimulateProbes", "simulate_probes was accepted and changed nothing"),
        ("TestIgnoresProbeBig", "probe_big was accepted and changed nothing"),
        ("TestRefusesTheSeed", "seed was refused, and is none of the settings that may be"),
    ],
)
def test_the_setting_that_is_ignored_is_named(outcomes: Outcomes, suite: str, told: str) -> None:
    """[CONF-030] Alone, whatever must be changed with it acts."""
    (message,) = outcomes[suite]["failed"].values()
    assert told in message


def test_every_test_of_the_kit_has_failed_once() -> None:
    """[CONF-004] A test that nobody fails would prove nothing."""
    suites = (ReconstructorConformance, ForwardConformance, CrossBackendConformance)
    tests = {name for suite in suites for name in dir(suite) if name.startswith("test_")}
    assert tests == frozenset().union(*MEANT.values())


@pytest.mark.usefixtures("outcomes")
def test_nothing_is_left_behind(folder: Path) -> None:
    """[CONF-005]"""
    assert list(folder.iterdir()) == []


def test_skips_name_the_capability(outcomes: Outcomes) -> None:
    """[CONF-003] Every reason is a capability, or a backend that is not installed."""
    reasons = {name: text for found in outcomes.values() for name, text in found["skipped"].items()}
    assert "'nobody' is not installed" in reasons.pop(CROSS)
    assert set(reasons) == {"test_what_it_cannot_do_is_refused"}
    assert "has the capability" in reasons["test_what_it_cannot_do_is_refused"]


def test_failures_show_values(outcomes: Outcomes) -> None:
    """[CONF-001] Asserts of the kit are rewritten, wherever it is installed."""
    message = outcomes["TestDropsAPattern"]["failed"]["test_every_pattern_comes_once"]
    assert "assert [0, 1, 2" in message


def test_no_setting_is_forgotten() -> None:
    """[CONF-030] Each one is changed, or named as one whose effect shows elsewhere."""
    seen = MODEL_CHANGES.keys() | TRAIN_CHANGES.keys()
    assert seen | TESTED_ELSEWHERE == ModelConfig.model_fields.keys() | TrainConfig.model_fields.keys()
    assert not seen & TESTED_ELSEWHERE
