"""The other end of the agent's socket: what modules use. Blocking."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from turbokube.daemon import control, process
from turbokube.daemon.control import ControlError

from .control import TAKEOVER_S

_START_S = 30.0  # a Python that starts on a machine at full load


class AgentClient:
    """A run's agent, started when it is needed. `controller` names who drives."""

    def __init__(self, state: Path, bundle: Path, controller: str) -> None:
        self._state = state.resolve()
        self._bundle = bundle.resolve()
        self._controller = controller
        self._path = control.socket_path(self._state, "agent")

    def alive(self) -> bool:
        """Whether an agent answers. Raises ControlError if it is another bundle's."""
        try:
            status = control.call(self._path, {"command": "status"})
        except ConnectionError:
            return False
        if status["bundle"] != str(self._bundle):
            raise ControlError(f"the agent of {self._state} works on {status['bundle']}; finish that run first")
        return True

    def ensure(self) -> bool:
        """Start the agent unless it lives; whether it had to be started. Raises ControlError if it does not come up."""
        if self.alive():
            return False
        log = self._state / "log" / "agent.log"
        for folder in (self._state, log.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "turbokube.agent", "--state", str(self._state), "--bundle", str(self._bundle)]
        process.stop([old for old in process.marked(self._state) if old.name == "agent"])  # alive, but does not answer
        started = process.spawn(argv, state=self._state, name="agent", log=log)
        end = time.monotonic() + _START_S
        while not self.alive():
            if started.poll() is not None or time.monotonic() > end:
                raise ControlError(f"the agent did not start; the end of {log}:\n{process.tail(log)}")
            time.sleep(0.1)
        return True

    def open(self, run: dict[str, Any]) -> None:
        """Have the run open in the agent; waits for a controller that has gone without a word."""
        end = time.monotonic() + TAKEOVER_S + 1.0
        while True:
            try:
                self.call("open", run=run, timeout=60.0)
            except ControlError as error:
                if "another ansible-playbook" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(0.5)
            else:
                return

    def gone(self, patience: float = 15.0) -> None:
        """Wait until the agent's process has ended, as it does after `finish`."""
        end = time.monotonic() + patience
        while process.find(self._state, "agent") is not None and time.monotonic() < end:
            time.sleep(0.05)

    def call(self, command: str, *, timeout: float = 60.0, **arguments: Any) -> dict[str, Any]:
        """One command. Raises ControlError when it is refused, ConnectionError when the agent is gone."""
        request = {"command": command, "controller": self._controller, **arguments}
        return control.call(self._path, request, timeout=timeout)
