"""KWOK's configuration: the stages are whole, and say what the spec says."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from turbokube.engines.kwok import stages
from turbokube.vnode.spec import Spec


def made(**changes: Any) -> dict[str, dict[str, Any]]:
    text = stages(Spec(run="r", count=1, engine="kwok", **changes))
    assert "@" not in text.replace("%s@sha256", "")
    return {document["metadata"]["name"]: document for document in yaml.safe_load_all(text)}


def expression(document: dict[str, Any]) -> str:
    return str(document["spec"]["delay"]["durationFrom"]["jq"]["expression"])


def test_a_node_is_reported_as_often_as_the_spec_says() -> None:
    delay = made(status_interval=60.0)["node-heartbeat"]["spec"]["delay"]
    least, most = delay["durationMilliseconds"], delay["jitterDurationMilliseconds"]
    assert least < 60_000 < most
    assert (least + most) / 2 == 60_000


def test_kwok_may_do_as_much_at_once_as_the_spec_says() -> None:
    assert made(connections=5)["turbokube"]["options"]["podPlayStageParallelism"] == 5


@pytest.mark.parametrize(
    ("option", "text", "plain"),
    [
        ("start_delay", "2.5", '// "2.5"'),
        ("start_delay", " uniform( 1, 3 )", '// "uniform(1.0,3.0)"'),
        ("stop_delay", "exponential(2)", '// "exponential(2)"'),
        ("run_time", "lognormal(0.7,0.4)", '// "lognormal(0.7,0.4)"'),
    ],
)
def test_durations_reach_their_stage(option: str, text: str, plain: str) -> None:
    stage = {"start_delay": "pod-start", "stop_delay": "pod-end", "run_time": "pod-complete"}[option]
    assert plain in expression(made(**{option: text})[stage])
    assert f"turbokube.io/{option.replace('_', '-')}" in expression(made()[stage])


def test_seeds_differ_and_options_draw_apart() -> None:
    first, second = (expression(made(seed=seed)["pod-start"]) for seed in (1, 2))
    assert first != second
    stages_of = made()
    digits = {expression(stages_of[name]).rpartition("seconds(")[2] for name in ("pod-start", "pod-ready", "pod-end")}
    assert len(digits) == 3


def test_without_a_run_time_nothing_completes_by_itself() -> None:
    keys = [str(one) for one in made()["pod-complete"]["spec"]["selector"]["matchExpressions"]]
    assert any('// ""' in key and "NotIn" in key for key in keys)


def test_a_pod_that_starts_says_all_that_measuring_tools_look_for() -> None:
    steps = made()["pod-start"]["spec"]["steps"]
    assert [next(iter(step)) for step in steps] == ["event", "patch"]  # who sees it Ready looks for the Event at once
    assert steps[0]["event"]["reason"] == "Started"
    assert "PodReadyToStartContainers" in steps[1]["patch"]["template"]


def test_a_pod_that_is_deleted_ends_as_one_that_completes_does() -> None:
    found = made()
    assert found["pod-end"]["spec"]["steps"] == found["pod-complete"]["spec"]["steps"]
