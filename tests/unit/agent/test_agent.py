from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from turbokube.agent.control import PAUSE_S, TAKEOVER_S, Controller
from turbokube.agent.daemon import Agent, held
from turbokube.agent.progress import PhaseProgress, Rate, duration, line
from turbokube.bundle.writer import BundleError
from turbokube.daemon.control import ControlError


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_controller_at_a_time() -> None:
    clock = Clock()
    controller = Controller("r", clock)
    controller.attend("first")
    clock.now += TAKEOVER_S - 1
    with pytest.raises(ControlError, match="run r is being driven by another ansible-playbook"):
        controller.attend("second")
    controller.attend("first")
    clock.now += TAKEOVER_S - 1
    with pytest.raises(ControlError):
        controller.attend("second")
    clock.now += 2
    controller.attend("second")
    with pytest.raises(ControlError):
        controller.attend("first")
    assert controller.silence == 0


def test_a_controller_that_has_died_here_is_succeeded_at_once() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    for holder, free in ((f"{socket.gethostname()}/{child.pid}", True), (f"elsewhere/{child.pid}", False)):
        controller = Controller("r", Clock())
        controller.attend(holder)
        with contextlib.nullcontext() if free else pytest.raises(ControlError):
            controller.attend("second")
    controller = Controller("r", Clock())
    controller.attend(f"{socket.gethostname()}/{os.getpid()}")
    with pytest.raises(ControlError):
        controller.attend("second")


def test_a_refused_controller_does_not_count_as_attention() -> None:
    clock = Clock()
    controller = Controller("r", clock)
    controller.attend("first")
    clock.now += 10
    with pytest.raises(ControlError):
        controller.attend("second")
    assert controller.silence == 10


class Session:
    """What the daemon needs of a session, to see what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.working, self.failure = True, None

    def pause(self) -> None:
        self.told.append("pause")

    def proceed(self) -> None:
        self.told.append("proceed")

    async def wait(self, seconds: float) -> None: ...

    def progress(self, name: str) -> PhaseProgress:
        return PhaseProgress(phase=name, state="running")


def test_unattended_it_pauses_and_followed_it_proceeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        clock, session = Clock(), Session()
        agent = Agent(tmp_path, tmp_path / "run")
        agent._controller, agent._session = Controller("r", clock), session  # type: ignore[assignment]
        sleep = asyncio.sleep

        async def quick(_: float) -> None:
            await sleep(0)

        monkeypatch.setattr(asyncio, "sleep", quick)
        attending = asyncio.create_task(agent._attend())
        clock.now += PAUSE_S - 1
        for _ in range(5):
            await sleep(0)
        assert session.told == []
        clock.now += 2
        for _ in range(3):
            await sleep(0)
        assert set(session.told) == {"pause"}
        session.told.clear()
        answer = await agent._handle({"command": "follow", "controller": "x", "names": ["create"], "wait": 0})
        assert answer["progress"][0]["phase"] == "create"
        assert session.told == ["proceed"]
        assert not agent._over.is_set()
        clock.now += 901
        for _ in range(3):
            await sleep(0)
        assert agent._over.is_set()
        attending.cancel()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"command": "dance"}, "no command 'dance'"),
        ({"command": "finish", "controller": "x"}, "no run open"),
        ({"command": "submit", "controller": "x", "phases": [{"kind": "create"}]}, "missing required field"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path: Path, request_: dict[str, Any], message: str) -> None:
    async def scenario() -> None:
        await Agent(tmp_path, tmp_path / "run")._handle(request_)

    with pytest.raises(ControlError, match=message):
        asyncio.run(scenario())


def test_one_agent_holds_a_bundle(tmp_path: Path) -> None:
    with held(tmp_path / "run"), pytest.raises(BundleError, match="another agent holds"), held(tmp_path / "run"):
        pass
    with held(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_the_line_says_how_far_it_is() -> None:
    progress = PhaseProgress(
        phase="create",
        state="running",
        intended=8192,
        created=3512,
        scheduled=3400,
        running=3120,
        rate=71.2,
        eta=71.6,
        away=["kube-apiserver-0"],
    )
    assert line(progress) == (
        "create: 3,120/8,192 running · 3,400 scheduled · 3,512 created · 71 pods/s · about 1 min 12 s left · "
        "no answer from kube-apiserver-0"
    )
    progress.state, progress.elapsed = "done", 115.0
    assert line(progress).endswith("3,512 created · done after 1 min 55 s")
    assert [duration(s) for s in (0.4, 59.4, 59.6, 3599.4, 7500)] == [
        "0 s",
        "59 s",
        "1 min 0 s",
        "59 min 59 s",
        "2 h 5 min",
    ]


def test_the_line_of_other_kinds_has_their_own_words() -> None:
    progress = PhaseProgress(phase="churn", kind="churn", state="running", words="40 of 96 done", elapsed=12.0)
    assert line(progress) == "churn: 40 of 96 done · 12 s"
    progress.state, progress.elapsed = "deadline", 61.0
    assert line(progress) == "churn: 40 of 96 done · deadline after 1 min 1 s"
    assert line(PhaseProgress(phase="calm", kind="pause", state="running", elapsed=3.0)) == "calm: 3 s"


def test_rates_are_over_their_windows() -> None:
    rate = Rate()
    assert rate.over() == 0.0
    assert rate.left(10) is None
    for second in range(100):
        rate.add(float(second), 10 * second if second < 90 else 900)
    assert rate.over() == pytest.approx((900 - 890) / 10)
    assert rate.left(100) == pytest.approx(100 / ((900 - 390) / 60))
