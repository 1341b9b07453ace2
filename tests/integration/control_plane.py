"""A real control plane on loopback, for tests: made by the collection's own roles, gone when the block ends.

In a test, take the session's fixture (one control plane for all tests that name it; tests/integration/conftest.py):

    def test_something(target):          # path of target.json; `load_target(target)` reads it
        ...

or make one of your own, with other variables or more members:

    from tests.integration.control_plane import control_plane

    with control_plane(etcd=3, apiservers=2, control_plane_client_qps=50) as plane:
        plane.target                     # path of target.json
        plane.state                      # the run's state folder: kubeconfigs/*.conf, log/*.log, ports.json
        plane.kubectl("get", "nodes")    # as admin; returns what it writes

Keywords but `etcd`, `apiservers` and `state` are variables of the roles etcd, control_plane and scheduler.
Binaries come from the folder TURBOKUBE_BINARIES or, without it, from the cache that role kube_binaries fills.

From a shell, for work by hand: prints the path of target.json, keeps the control plane until Enter or SIGTERM:

    python tests/integration/control_plane.py [--state FOLDER] [variable=value ...]
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
# Variables of the control plane that the tests of a session share (fixture `plane`)
SHARED: dict[str, Any] = {
    "scheduler_extra": 1,
    "control_plane_controller_manager_env": {"GOGC": "150"},
    "control_plane_load_groups": ["shop.example"],
}
NAMES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubeadm", "kubectl", "etcd", "etcdctl", "kine")
ENGINES = ("kwok", "kubemark")  # of other makers; only slow tests need them


class PlaybookFailed(Exception):
    """ansible-playbook ended with an error; the message is all it wrote."""


@dataclass(frozen=True)
class ControlPlane:
    """A control plane that runs. `results`: host → {ok, changed, failures, …} of the last ansible-playbook."""

    state: Path
    results: dict[str, dict[str, int]]

    @property
    def target(self) -> Path:
        return self.state / "target.json"

    def kubectl(self, *arguments: str) -> str:
        """What kubectl writes when the admin asks; raises CalledProcessError when it is refused."""
        command = [binaries()["kubectl"], f"--kubeconfig={self.state}/kubeconfigs/admin.conf", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def cache() -> Path:
    """Where role kube_binaries keeps what runs on this machine: a folder for each project and version."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "turbokube"
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return Path(os.environ.get("TURBOKUBE_CACHE") or home) / "bin" / f"linux-{machine}"


def binaries() -> dict[str, str]:
    """Name → path of the binaries that are there: in TURBOKUBE_BINARIES, else in the cache's folders."""
    folder = os.environ.get("TURBOKUBE_BINARIES")
    places = [Path(folder)] if folder else sorted(cache().glob("*-*"))
    return {name: str(place / name) for place in places for name in (*NAMES, *ENGINES) if (place / name).exists()}


@contextlib.contextmanager
def control_plane(
    *, etcd: int = 1, apiservers: int = 1, state: Path | None = None, **variables: Any
) -> Iterator[ControlPlane]:
    """Bring a control plane up, and tear it down whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="turbokube-test-"))
    state = state or folder / "state"
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # as a bench that `timeout` ends
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        yield provision(state, etcd=etcd, apiservers=apiservers, **variables)
    finally:
        teardown(state)
        shutil.rmtree(folder)


def provision(
    state: Path, *, etcd: int = 1, apiservers: int = 1, check: bool = False, **variables: Any
) -> ControlPlane:
    """Apply the roles etcd, control_plane and scheduler once; again on the same state it must change nothing."""
    given = {f"{role}_state": str(state) for role in ("etcd", "control_plane", "scheduler")}
    results = playbook(
        [
            _play("etcd", "etcd"),
            _play("control_plane", "control_plane"),
            _play("scheduler", "scheduler"),
        ],
        {"kube_binaries_paths": binaries(), **given, **variables},
        {"etcd": etcd, "control_plane": apiservers, "scheduler": 1},
        *(["--check"] if check else []),
    )
    return ControlPlane(state, results)


def teardown(state: Path) -> dict[str, dict[str, int]]:
    """Apply the role teardown, which fails when anything is left."""
    return playbook([_play("admin", "teardown")], {"teardown_state": str(state)}, {"admin": 1})


def playbook(
    plays: list[dict[str, Any]], variables: dict[str, Any], groups: dict[str, int], *arguments: str
) -> dict[str, dict[str, int]]:
    """Run plays on aliases of this machine, `groups` telling how many of each; returns each host's counts."""
    inventory = {
        "all": {
            "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
            "children": {
                group: {"hosts": {f"{group.replace('_', '-')}-{number}": {} for number in range(count)}}
                for group, count in groups.items()
            },
        }
    }
    with tempfile.TemporaryDirectory(prefix="turbokube-play-") as folder:
        for name, content in (("play.yml", plays), ("hosts.json", inventory), ("vars.json", variables)):
            (Path(folder) / name).write_text(json.dumps(content))
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                f"--inventory={folder}/hosts.json",
                f"--extra-vars=@{folder}/vars.json",
                *arguments,
                f"{folder}/play.yml",
            ],
            cwd=REPOSITORY,
            env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise PlaybookFailed(done.stdout + done.stderr)
    if os.environ.get("TURBOKUBE_TEST_VERBOSE"):
        print(done.stdout, file=sys.stderr)
    return _recap(done.stdout)


def _play(group: str, role: str) -> dict[str, Any]:
    return {
        "name": f"Apply {role}",
        "hosts": group,
        "gather_facts": False,
        "any_errors_fatal": True,
        "roles": [{"role": f"turbokube.scale.{role}"}],
    }


def _recap(output: str) -> dict[str, dict[str, int]]:
    """The counts that ansible-playbook ends with: "host : ok=1 changed=0 …"."""
    lines = output.partition("PLAY RECAP")[2].splitlines()[1:]
    pairs = {line.partition(":")[0].strip(): line.partition(":")[2].split() for line in lines if ":" in line}
    return {
        host: {word.partition("=")[0]: int(word.partition("=")[2]) for word in words} for host, words in pairs.items()
    }


def main() -> None:
    """Keep a control plane for work by hand."""
    words = sys.argv[1:]
    state = Path(words.pop(words.index("--state") + 1)) if "--state" in words else None
    variables = dict(word.split("=", 1) for word in words if "=" in word)
    numbers = {name: int(variables.pop(name)) for name in ("etcd", "apiservers") if name in variables}
    with control_plane(state=state, **numbers, **variables) as plane:  # type: ignore[arg-type]
        print(plane.target, flush=True)
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            input() if sys.stdin.isatty() else signal.pause()


if __name__ == "__main__":
    main()
