"""What inspection finds of what is planted in good scans, and how long it takes. Requirements: specs/21-verdict.md."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hardening.kit.planted import changed, changes_for, drawn_scans, good_scans, outcome, sparse_scans

from ptychopinn.config import SimulationConfig
from ptychopinn.inspection import Agreement, check_geometry, check_geometry_quickly
from ptychopinn.simulate import simulate_scan
from ptychopinn.verdict import Explains
from ptychopinn.workflows import create_solver, solve

_FIRST_SEED = 1000  # of scans that no threshold was set on
_FIRST_SPARSE_SEED = 31000
_QUICK = 3  # every third case of the first scan; the long form tries all of every scan


def test_inspection_finds_what_is_planted(long: bool, figure: Callable[[str], None]) -> None:
    """[INSP-006] In 99 of 100 cases it is right, or says that the data cannot tell."""
    found: Counter[str] = Counter()
    wrong = []
    for number, (name, scan) in enumerate(good_scans()):
        if number and not long:
            break
        for change in list(changes_for(number))[:: 1 if long else _QUICK]:
            result = outcome(scan, change, check_geometry(changed(scan, change)))
            found[result] += 1
            if result == "wrong":
                wrong.append(f"{name}: {change}")
    figure(f"inspection: {', '.join(f'{count} {result}' for result, count in found.most_common())} {wrong or ''}")
    assert found["right"] >= 0.9 * found.total(), found
    assert len(wrong) <= found.total() // 100, wrong


def test_inspection_of_a_thousand_patterns_is_quick(long: bool, figure: Callable[[str], None]) -> None:
    """[INSP-005] Time of one core: ten seconds with everything, half a second before a training."""
    if not long:  # 32 x 32 patterns show that both end, no more
        size, rows = 32, 12
    else:
        size, rows = 128, 32
    scan = simulate_scan(SimulationConfig(N=size, rows=rows, cols=rows, nphotons=1e5, object_kind="mixture"))
    wrong = changed(scan, next(change for change in changes_for(0) if change.flags))  # so that all is tried
    limits = {check_geometry: 10.0, check_geometry_quickly: 0.5}
    for check, limit in limits.items():
        seconds = []
        for _ in range(3):
            begun = time.process_time()
            assert check(wrong) is not None
            seconds.append(time.process_time() - begun)
        figure(f"{check.__name__}, {len(scan)} patterns of {size} x {size}: {np.median(seconds):.2f} s of one core")
        assert np.median(seconds) < limit


def test_good_scans_raise_no_alarm(long: bool, figure: Callable[[str], None]) -> None:
    """[VER-005] After three passes and after twelve."""
    found: Counter[str] = Counter()
    alarms = []
    for name, scan in drawn_scans(_FIRST_SEED, 40 if long else 2):
        for passes in (3, 12):
            result = solve(create_solver("rpie", {"passes": passes}), replace(scan, object_guess=None))
            assert result.verdict is not None
            found[result.verdict.explains] += 1
            if result.verdict.explains is Explains.NO:
                alarms.append(f"{name}, {passes} passes")
    figure(f"verdicts on good scans: {', '.join(f'{count} {said}' for said, count in found.items())}")
    assert not alarms
    assert found[Explains.YES] > 0


def test_sparse_scans_raise_no_alarm(long: bool, figure: Callable[[str], None]) -> None:
    """[INSP-007] At most one in 100."""
    found: Counter[str] = Counter()
    alarms = []
    for name, scan in sparse_scans(_FIRST_SPARSE_SEED, 200 if long else 4):
        check = check_geometry(replace(scan, object_guess=None))
        assert check is not None
        found[check.agreement] += 1
        if check.agreement in {Agreement.CHANGED, Agreement.NONE}:
            alarms.append(f"{name}: {check.agreement}, {check.best}")
    figure(f"sparse good scans: {', '.join(f'{count} {said}' for said, count in found.items())} {alarms or ''}")
    assert len(alarms) <= found.total() // 100, alarms
