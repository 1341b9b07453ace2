"""Containers' lives, told the time: nothing here waits."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from vnode_fakes import a_pod

from turbokube.vnode.behaviour import Behaviour, Behaviours
from turbokube.vnode.clock import rfc3339
from turbokube.vnode.objects import ContainerStatus
from turbokube.vnode.pod.lives import BACKED_OFF, EXITED, RUNNING, STARTING, Life
from turbokube.vnode.spec import Spec

BEGAN = 1_000_000.0


def behaviour(**options: Any) -> Behaviour:
    return Behaviours(Spec(run="trial", count=1, **options)).usual


def begun(containers: str = "a", policy: str = "Always", **options: Any) -> Life:
    life = Life(a_pod(containers, policy), behaviour(**options), lambda life: None)
    life.start(BEGAN)
    return life


def states(life: Life, until: float) -> list[tuple[float, str, int]]:
    """(seconds since it began, state, restarts) at each change of the first container, up to `until` seconds."""
    seen = []
    while (due := life.due) <= BEGAN + until:
        list(life.advance(due))
        seen.append((due - BEGAN, life.runs[0].state, life.runs[0].restarts))
    return seen


def test_a_pod_without_a_run_time_is_ready_and_stays_as_it_is() -> None:
    life = begun()
    assert (life.phase, life.ready, life.plain, life.settled) == ("Running", True, True, True)


def test_containers_are_not_ready_until_their_delay_is_over() -> None:
    life = begun("ab", ready_delay="5")
    assert (life.ready, life.unready, life.due) == (False, ["a", "b"], BEGAN + 5)
    assert list(life.advance(BEGAN + 4.9)) == []
    assert (life.ready, life.version) == (False, 0)
    assert list(life.advance(BEGAN + 5)) == []
    assert (life.ready, life.version, life.settled, life.plain) == (True, 2, True, True)


@pytest.mark.parametrize(
    ("policy", "rate", "phase"),
    [("Never", 0, "Succeeded"), ("OnFailure", 0, "Succeeded"), ("Never", 1, "Failed")],
)
def test_a_job_ends_when_its_containers_have(policy: str, rate: float, phase: str) -> None:
    life = begun("ab", policy, run_time="7", failure_rate=rate)
    list(life.advance(BEGAN + 6))
    assert life.phase == "Running"
    list(life.advance(BEGAN + 30))
    assert (life.phase, life.ready, life.settled) == (phase, False, True)
    run = life.runs[0]
    assert run.exit is not None
    assert (run.exit.code, run.exit.started, run.exit.finished) == (int(rate), BEGAN, BEGAN + 7)


def test_one_of_several_containers_that_fails_makes_the_pod_fail_once_all_have_ended() -> None:
    life = begun("abcdefgh", "Never", run_time="uniform(1,9)", failure_rate=0.4)
    ends = {run.container.name: run.ends for run in life.runs}
    codes = {run.code for run in life.runs}
    assert len(set(ends.values())) == 8
    assert codes == {0, 1}
    list(life.advance(sorted(ends.values())[-2]))
    assert life.phase == "Running"
    list(life.advance(BEGAN + 10))
    assert life.phase == "Failed"


@pytest.mark.parametrize(("policy", "rate"), [("Always", 0.0), ("Always", 1.0), ("OnFailure", 1.0)])
def test_restarts_back_off_as_a_kubelets_from_ten_seconds_to_five_minutes(policy: str, rate: float) -> None:
    life = begun("a", policy, run_time="2", failure_rate=rate)
    seen = states(life, 1300)
    starts = [at for at, state, _ in seen if state == RUNNING]
    waits = [start - end for start, end in zip(starts, [2.0, *(at + 2 for at in starts)], strict=False)]
    assert waits[0] == 1  # two relists
    for wait, least in zip(waits[1:], (10, 20, 40, 80, 160, 300), strict=False):
        assert least + 1 <= wait <= 1.5 * max(least, 60) + least + 1
    assert len(waits) >= 6
    assert [state for _, state, _ in seen[:6]] == [EXITED, RUNNING, EXITED, STARTING, RUNNING, EXITED]
    assert BACKED_OFF in {state for _, state, _ in seen}  # in a wait of more than a minute it is looked at
    assert life.phase == "Running"


def test_a_long_run_ends_the_back_off() -> None:
    life = begun("a", run_time="601")
    starts = [at for at, state, _ in states(life, 5000) if state == RUNNING]
    assert starts == [602, 1204, 1806, 2408, 3010, 3612, 4214, 4816]


def test_a_container_that_succeeds_is_not_restarted_on_failure_only() -> None:
    life = begun("a", "OnFailure", run_time="2", failure_rate=0.5, seed=3)
    codes = []
    while not life.settled:
        run = life.runs[0]
        codes.append(run.code)
        list(life.advance(run.ends))
        if not life.settled:
            list(life.advance(run.ends + 400))
    assert codes[-1] == 0
    assert set(codes[:-1]) <= {1}
    assert life.phase == "Succeeded"


def test_restarts_and_their_putting_off_are_told_and_counted() -> None:
    life = begun("a", run_time="2")
    told = [(reason, run.starts, run.backoffs) for at in range(60) for run, reason in life.advance(BEGAN + at)]
    assert told[:5] == [("Started", 2, 0), ("BackOff", 2, 1), ("Started", 3, 1), ("BackOff", 3, 2), ("Started", 4, 2)]
    assert (life.runs[0].began, life.runs[0].backed) == (BEGAN, BEGAN + 5)


def test_what_nobody_looked_at_has_ended_when_it_was_due_and_is_restarted_once() -> None:
    life = begun("a", run_time="2")
    list(life.advance(BEGAN + 500))
    run = life.runs[0]
    assert run.exit is not None
    assert (run.exit.finished, run.due) == (BEGAN + 2, BEGAN + 501)
    list(life.advance(BEGAN + 501))
    assert (run.state, run.started, run.restarts) == (RUNNING, BEGAN + 501, 1)


# taking over


def resumed(life: Life, policy: str, now: float, *statuses: dict[str, Any], **options: Any) -> Life:
    other = Life(
        a_pod("".join(run.container.name for run in life.runs), policy), behaviour(**options), lambda life: None
    )
    other.resume([msgspec.convert(status, ContainerStatus) for status in statuses], now)
    return other


def test_an_engine_that_takes_over_ends_containers_when_the_one_before_would_have() -> None:
    options: dict[str, Any] = {"run_time": "uniform(5,50)", "failure_rate": 0.5}
    life = begun("ab", "Never", **options)
    statuses = [{"name": name, "ready": True, "state": {"running": {"startedAt": rfc3339(BEGAN)}}} for name in "ab"]
    other = resumed(life, "Never", BEGAN + 3, *statuses, **options)
    assert [(run.ends, run.code) for run in other.runs] == [(run.ends, run.code) for run in life.runs]
    assert (other.version, other.ready_said, other.ready) == (0, True, True)


def test_delays_go_on_from_the_containers_own_start() -> None:
    running = {"name": "a", "ready": False, "state": {"running": {"startedAt": rfc3339(BEGAN)}}}
    other = resumed(begun(), "Always", BEGAN + 3, running, ready_delay="10")
    assert (other.ready, other.ready_said, other.due) == (False, False, BEGAN + 10)
    late = resumed(begun(), "Always", BEGAN + 30, running)  # it was never told, and there is no delay any more
    assert (late.ready, late.ready_said, late.version) == (True, False, 1)


def test_a_back_off_goes_on_where_it_was() -> None:
    ended = {"terminated": {"exitCode": 1, "startedAt": rfc3339(BEGAN), "finishedAt": rfc3339(BEGAN + 2)}}
    waiting = {"name": "a", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}
    other = resumed(begun(), "Always", BEGAN + 7, waiting, run_time="2", failure_rate=1)
    assert other.runs[0].state == BACKED_OFF
    assert BEGAN + 42 <= other.due <= BEGAN + 62
    list(other.advance(other.due))
    list(other.advance(other.due))
    assert (other.runs[0].restarts, other.runs[0].backoff, other.runs[0].starts) == (4, 80, 1)


def test_containers_that_have_ended_for_good_stay_so() -> None:
    ended = {"terminated": {"exitCode": 1, "startedAt": rfc3339(BEGAN), "finishedAt": rfc3339(BEGAN + 2)}}
    other = resumed(begun(), "Never", BEGAN + 7, {"name": "a", "state": ended}, run_time="2")
    assert (other.phase, other.due) == ("Failed", math.inf)
