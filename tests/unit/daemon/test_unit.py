"""Services of a run, with a systemctl that only writes down what it is asked."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from turbokube.daemon import unit
from turbokube.daemon.control import ControlError
from turbokube.supervise.teardown import stop_all

_SYSTEMCTL = """#!/bin/sh
echo "$@" >> {log}
[ "$1" != show ] || cat {told}
case "$*" in "$(cat {refused})"*) echo no such verb >&2; exit 1;; esac
"""


class Systemd:
    def __init__(self, folder: Path) -> None:
        self.units = folder / "units"
        self.units.mkdir()
        self._log, self._told, self._refused = folder / "log", folder / "told", folder / "refused"
        for file in (self._log, self._told):
            file.write_text("")
        self.refuse("nothing")
        command = folder / "bin" / "systemctl"
        command.parent.mkdir()
        command.write_text(_SYSTEMCTL.format(log=self._log, told=self._told, refused=self._refused))
        command.chmod(0o755)

    def tell(self, **properties: object) -> None:
        self._told.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))

    def refuse(self, verb: str) -> None:
        self._refused.write_text(verb)

    @property
    def asked(self) -> list[str]:
        return self._log.read_text().splitlines()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    found = Systemd(tmp_path)
    monkeypatch.setattr(unit, "FOLDER", found.units)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return found


def spawn(state: Path, name: str = "fleet-1") -> unit.Unit:
    state.mkdir(exist_ok=True)
    argv = ["/opt/a b/python", "-m", "turbokube.vnode", "--share", "50%", "$HOME"]
    return unit.spawn(argv, state=state, name=name, log=state / "x.log", environment={"MALLOC_TRIM_THRESHOLD_": "1"})


def test_a_service_is_marked_as_the_runs_and_started_now_and_with_its_host(systemd: Systemd, tmp_path: Path) -> None:
    state = tmp_path / "trial"
    spawn(state)
    (file,) = systemd.units.iterdir()
    assert file.name == "turbokube-trial-fleet-1.service"
    lines = file.read_text().splitlines()
    marks = {word for line in lines if line.startswith("Environment=") for word in shlex.split(line[12:])}
    assert marks == {f"TURBOKUBE_STATE={state}", "TURBOKUBE_COMPONENT=fleet-1", "MALLOC_TRIM_THRESHOLD_=1"}
    (command,) = [line[10:] for line in lines if line.startswith("ExecStart=")]
    assert shlex.split(command) == ["/opt/a b/python", "-m", "turbokube.vnode", "--share", "50%%", "$$HOME"]
    assert "Restart=always" in lines
    verbs = [line.split()[0] for line in systemd.asked]
    assert verbs == ["daemon-reload", "reset-failed", "enable", "restart"]


def test_one_that_systemd_starts_again_and_again_has_ended(systemd: Systemd, tmp_path: Path) -> None:
    one = spawn(tmp_path / "trial")
    systemd.tell(NRestarts=0, ActiveState="active", ExecMainStatus=0)
    assert one.poll() is None
    systemd.tell(NRestarts=2, ActiveState="activating", ExecMainStatus=7)
    assert (one.poll(), one.returncode) == (7, 7)


def test_teardown_removes_the_runs_services_and_no_others(systemd: Systemd, tmp_path: Path) -> None:
    for run in ("trial", "trial-2"):
        spawn(tmp_path / run)
    (systemd.units / "turbokube-strange.service").write_text("Environment='\n")
    assert unit.names(tmp_path / "trial") == ["turbokube-trial-fleet-1.service"]
    stop_all(tmp_path / "trial")
    assert sorted(file.name for file in systemd.units.iterdir()) == [
        "turbokube-strange.service",
        "turbokube-trial-2-fleet-1.service",
    ]
    assert "disable --quiet --now turbokube-trial-fleet-1.service" in systemd.asked
    before = len(systemd.asked)
    stop_all(tmp_path / "trial")
    assert len(systemd.asked) == before, "a host without services needs no systemd"


def test_what_systemd_refuses_is_told(systemd: Systemd, tmp_path: Path) -> None:
    systemd.refuse("restart")
    with pytest.raises(ControlError, match=r"systemctl restart turbokube-trial-fleet-1.*no such verb"):
        spawn(tmp_path / "trial")
