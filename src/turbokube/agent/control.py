"""Who drives a run: one controller at a time, and none for ever."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from turbokube.daemon.control import ControlError

TAKEOVER_S = 15.0  # after so long without a word from its controller a run may be taken over
PAUSE_S = 30.0  # after so long nothing new is created
LEAVE_S = 900.0  # after so long the agent puts all in order and ends


class Controller:
    """Remembers who spoke last, and when. A controller calls itself <host>/<process id>."""

    def __init__(self, run: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = run
        self._clock = clock
        self._token = ""
        self._heard = clock()

    def attend(self, token: str) -> bool:
        """Note that this controller is there, and whether it is a new one.

        Raises ControlError while another one drives the run.
        """
        if token != self._token and self._token and self.silence < TAKEOVER_S and not _dead(self._token):
            raise ControlError(f"run {self._run} is being driven by another ansible-playbook")
        new, self._token = token != self._token, token
        self._heard = self._clock()
        return new

    @property
    def silence(self) -> float:
        """Seconds since the controller last spoke."""
        return self._clock() - self._heard


def _dead(token: str) -> bool:
    """Whether the controller was a process of this machine, and is no more; of others only their silence tells."""
    host, _, pid = token.rpartition("/")
    return host == socket.gethostname() and pid.isdigit() and not os.path.exists(f"/proc/{pid}")
