"""Whoever is interrupted or killed, and when: the same command again ends with exact totals and the same pods.

One run of the quickstart's size is hit again and again at random moments; TURBOKUBE_SEED repeats a sequence.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from turbokube.bundle.reader import Reader
from turbokube.daemon import process

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
EACH = int(os.environ.get("TURBOKUBE_EACH", "5"))  # moments per victim and signal
NAMESPACES = int(os.environ.get("TURBOKUBE_NAMESPACES", "32"))
PODS = NAMESPACES * 256
VICTIMS = ("ansible-playbook", "agent", "fleet")
SIGNALS = (signal.SIGINT, signal.SIGKILL)


class Home:
    """A folder of runs, and the commands a user gives in it."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / ".turbokube" / "interrupted"
        self.bundle = folder / "runs" / "interrupted"
        self._log = folder / "playbooks.log"
        self._settings = [
            f"-eturbokube_home={folder}",
            "-eturbokube_run=interrupted",
            "-eturbokube_profile=quickstart",
            f"-eturbokube_namespaces={NAMESPACES}",
            "-eturbokube_rate=2.5",  # slow enough for every blow to fall into the load
        ]

    def start(self, playbook: str) -> subprocess.Popen[bytes]:
        """ansible-playbook in a session of its own, as a terminal would give it."""
        with self._log.open("ab") as log:
            return subprocess.Popen(
                ["ansible-playbook", f"playbooks/{playbook}.yml", *self._settings],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def play(self, playbook: str) -> None:
        """The same, to its end, which must be a good one."""
        assert self.start(playbook).wait(timeout=1200) == 0, self.tail()

    def tail(self) -> str:
        """What the playbooks said last."""
        return self._log.read_text()[-4000:]

    def pods(self) -> dict[str, tuple[str, str]]:
        """uid → name and phase of every pod there is."""
        kubectl = [str(self._kubectl()), f"--kubeconfig={self.state}/kubeconfigs/admin.conf"]
        said = subprocess.run([*kubectl, "get", "pods", "-A", "-o", "json"], capture_output=True, check=True)
        return {
            pod["metadata"]["uid"]: (pod["metadata"]["name"], pod["status"]["phase"])
            for pod in json.loads(said.stdout)["items"]
        }

    def _kubectl(self) -> Path:
        cache = Path(os.environ.get("TURBOKUBE_CACHE", Path.home() / ".cache/turbokube"))
        return next(cache.glob("bin/*/kubernetes-*/kubectl"))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    home.play("provision")
    try:
        yield home
    finally:
        home.play("teardown")
        assert not process.marked(home.state)


def hit(home: Home, victim: str, number: signal.Signals, run: subprocess.Popen[bytes]) -> None:
    """Send the signal; a playbook that lost its agent or engine is then ended as a user would."""
    if victim == "ansible-playbook" and number == signal.SIGKILL:
        run.kill()
    elif victim != "ansible-playbook" and (found := process.find(home.state, victim)):
        found.signal(number)
        time.sleep(2)
    for _ in range(3):
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGINT)
        try:
            run.wait(timeout=20)
            return
        except subprocess.TimeoutExpired:
            # ansible raises KeyboardInterrupt in a signal handler; where that runs inside a callback at a fork, Python
            # ignores it ("Exception ignored in"), and a user presses Ctrl-C once more
            continue
    run.kill()
    pytest.fail(f"{victim} got {number.name}; the playbook goes on:\n{home.tail()}")


def test_the_same_command_goes_on(home: Home) -> None:
    seed = int(os.environ.get("TURBOKUBE_SEED", random.randrange(10**6)))
    print(f"\nseed {seed}", file=sys.stderr)
    dice = random.Random(seed)
    blows = [(victim, number) for victim in VICTIMS for number in SIGNALS for _ in range(EACH)]
    dice.shuffle(blows)
    ran: set[str] = set()
    for victim, number in blows:
        run = home.start("run")
        moment = dice.uniform(2.0, 16.0)
        try:
            run.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            hit(home, victim, number, run)
        before = home.pods()
        print(f"{number.name} to {victim} after {moment:.1f} s: {len(before)} pods", file=sys.stderr)
        ran |= {uid for uid, (_, phase) in before.items() if phase == "Running"}
    home.play("run")
    after = home.pods()
    assert len(after) == PODS
    assert {phase for _, phase in after.values()} == {"Running"}
    assert ran <= after.keys(), "pods that ran were replaced"
    home.play("collect")
    with Reader(home.bundle) as record:
        assert record.query("SELECT count(*) FROM pods WHERE running_seen IS NOT NULL")[0][0] == PODS
        assert record.query("SELECT count(*) FROM pods WHERE deleted_seen IS NOT NULL")[0][0] == 0
        # of renewals there may be no minute that nothing interrupted
        assert record.meta()["measured_fidelity"]["level"] in ("lease", "")
