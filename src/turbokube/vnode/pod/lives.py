"""Containers that end: when, with which code, and when their kubelet starts them again.

Time is told, nothing is sent: `advance` brings a life to a moment. While no engine looked, exits are dated
when they were due, since containers end without a kubelet; restarts are not, since only a kubelet makes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from .. import objects
from ..behaviour import Behaviour
from ..clock import unix_time

# The kubelet's back-off of restarts (pkg/kubelet/kubelet.go, newCrashLoopBackOff; feature gates
# ReduceDefaultCrashLoopBackOffDecay off, KubeletCrashLoopBackOffMax without a configured maximum): the first restart is
# at once, the second 10 s after the exit, then twice as long up to 5 min, and anew after a run of more than 10 min
_FIRST_BACKOFF, _LONGEST_BACKOFF, _CALM = 10.0, 300.0, 600.0  # seconds
# An exit and the restart that follows at once are seen by two relists of the kubelet's PLEG (genericPlegRelistPeriod)
_RELIST = 1.0  # seconds

# Between an exit and the restart a kubelet looks at the pod when the back-off is over, once a minute at the least, and
# up to half of that late (pod_workers.go, completeWork). Only there it finds that the container waits, and says so
_LOOK, _LATE = 60.0, 0.5

RUNNING, EXITED, BACKED_OFF, STARTING = "Running", "Exited", "BackedOff", "Starting"
_NEVER = math.inf


class Exit:
    """How a run ended. Times are UNIX seconds."""

    __slots__ = ("code", "finished", "started")

    def __init__(self, code: int, started: float, finished: float) -> None:
        self.code, self.started, self.finished = code, started, finished


class Run:
    """A container of a pod: its present run, the exit before it, and what comes next when."""

    __slots__ = ("backed", "backoff", "backoffs", "began", "code", "container", "due", "ends", "exit", "last", "ready",
                 "ready_at", "restarts", "started", "starts", "state")  # fmt: skip

    def __init__(self, container: objects.Container) -> None:
        self.container = container
        self.state = RUNNING
        self.restarts = self.starts = 0  # how often it was started again; how often by this engine
        self.began = 0.0  # when this engine started it first
        self.started = self.ends = self.ready_at = 0.0
        self.code = 0  # with which this run ends
        self.ready = False
        self.exit: Exit | None = None  # of the present run, once it has ended
        self.last: Exit | None = None  # of the run before
        self.backoff = 0.0  # that the next restart waits for
        self.backoffs, self.backed = 0, 0.0  # how often it was waited, and since when first
        self.due = _NEVER


class Life:
    """The containers of one pod, from their start until none of them changes any more."""

    __slots__ = ("_behaviour", "_policy", "_wake", "queued", "ready_said", "runs", "uid", "version")

    def __init__(self, pod: objects.Pod, behaviour: Behaviour, wake: Callable[[Life], None]) -> None:
        """`wake` is who is to be told when something is due: see `awake`."""
        self.runs = tuple(Run(container) for container in pod.spec.containers)
        self.version = 0  # counts changes
        self.queued = False  # a report of them waits or is under way
        self.ready_said = False  # what the API server has been told
        self._behaviour = behaviour
        self._policy = pod.spec.restart_policy
        self.uid = pod.metadata.uid
        self._wake = wake

    @property
    def due(self) -> float:
        """When something changes next; infinite when nothing does."""
        return min(run.due for run in self.runs)

    @property
    def ready(self) -> bool:
        return all(run.ready for run in self.runs)

    @property
    def unready(self) -> list[str]:
        """The containers that are not ready, by name."""
        return [run.container.name for run in self.runs if not run.ready]

    @property
    def phase(self) -> str:
        """As the kubelet's getPhase has it: terminal once no container runs or will."""
        if any(run.state != EXITED or self._restarts(run) for run in self.runs):
            return "Running"
        return "Failed" if any(run.exit and run.exit.code for run in self.runs) else "Succeeded"

    @property
    def settled(self) -> bool:
        """Whether nothing will change of itself any more."""
        return self.due == _NEVER

    @property
    def plain(self) -> bool:
        """Whether all containers run and are ready."""
        return all(run.state == RUNNING and run.ready for run in self.runs)

    def awake(self) -> None:
        """Something is due. An appointment of this is a third of the memory of one with arguments."""
        self._wake(self)

    def start(self, now: float) -> None:
        """All containers start."""
        for run in self.runs:
            self._start(run, now)

    def resume(self, statuses: list[objects.ContainerStatus], now: float) -> None:
        """Go on from what an earlier engine has told of the containers."""
        known = {status.name: status for status in statuses}
        for run in self.runs:
            self._resume(run, known.get(run.container.name), now)
        self.ready_said = all(status.ready for status in statuses)
        self.version = int(self.ready != self.ready_said)

    def advance(self, now: float) -> Iterator[tuple[Run, str]]:
        """Bring it to `now`. Yields the runs that are to be told of by an Event, with its reason."""
        for run in self.runs:
            while run.due <= now:
                self.version += 1
                if reason := self._step(run, now):
                    yield run, reason

    # one container

    def _start(self, run: Run, now: float) -> None:
        run.began = run.began or now
        run.starts += 1
        self._run(run, now)

    def _run(self, run: Run, now: float) -> None:
        seconds, run.code = self._behaviour.run(self.uid, run.container.name, run.restarts)
        run.state, run.exit = RUNNING, None
        run.started, run.ends = now, now + seconds
        run.ready_at = now + self._behaviour.until_ready(self.uid, run.restarts)
        run.ready = run.ready_at <= now
        self._plan(run)

    def _plan(self, run: Run) -> None:
        run.due = run.ends if run.ready else min(run.ready_at, run.ends)

    def _step(self, run: Run, now: float) -> str:
        if run.state == RUNNING:
            if run.ends > run.due:
                run.ready = True
                self._plan(run)
                return ""
            return self._exit(run, now)
        assert run.exit is not None
        wait = self._wait(run)
        left = run.exit.finished + wait - now
        if wait and left > 0:
            run.state = BACKED_OFF
            return self._put_off(run, now, left)
        if wait and run.state != STARTING:
            run.state, run.due = STARTING, now + _RELIST
            return ""
        run.backoff = min(run.backoff * 2, _LONGEST_BACKOFF) if wait else _FIRST_BACKOFF
        run.restarts += 1
        run.last = run.exit
        self._start(run, now)
        return "Started"

    def _exit(self, run: Run, now: float) -> str:
        run.state, run.ready = EXITED, False
        run.exit = Exit(run.code, run.started, run.ends)
        run.due = _NEVER
        if not self._restarts(run):
            return ""
        wait = self._wait(run)
        if wait:
            return self._put_off(run, max(run.ends, now), run.ends + wait - max(run.ends, now))
        run.due = max(run.ends, now) + _RELIST
        return ""

    def _put_off(self, run: Run, now: float, left: float) -> str:
        late = self._behaviour.late(self.uid, run.container.name, run.restarts)
        run.due = now + min(max(left, 0.0), _LOOK) * (1 + _LATE * late)
        run.backed = run.backed or now
        run.backoffs += 1
        return "BackOff"

    def _restarts(self, run: Run) -> bool:
        policy = run.container.restart_policy or self._policy
        return policy == "Always" or (policy == "OnFailure" and run.exit is not None and run.exit.code != 0)

    @staticmethod
    def _wait(run: Run) -> float:
        """Seconds from an exit to the restart."""
        assert run.exit is not None
        return 0.0 if run.exit.finished - run.exit.started > _CALM else run.backoff

    def _resume(self, run: Run, status: objects.ContainerStatus | None, now: float) -> None:
        state = status.state if status else None
        if status is None or state is None:
            return self._run(run, now)
        run.restarts = status.restart_count
        if run.restarts:
            run.backoff = min(_FIRST_BACKOFF * 2 ** min(run.restarts - 1, 9), _LONGEST_BACKOFF)
        run.last = exit_of(status.last_state)
        if state.running is not None:
            self._run(run, unix_time(state.running.started_at) or now)
            run.ready = run.ready or status.ready
            self._plan(run)
            return
        run.state = EXITED if state.terminated else BACKED_OFF
        run.exit = exit_of(state) or run.last or Exit(0, now, now)
        late = self._behaviour.late(self.uid, run.container.name, run.restarts)
        restart = run.exit.finished + self._wait(run) * (1 + _LATE * late)
        run.due = max(now, restart) if self._restarts(run) else _NEVER


def exit_of(state: objects.ContainerState | None) -> Exit | None:
    """What a pod's status says of a container that has ended."""
    if state is None or state.terminated is None:
        return None
    ended = state.terminated
    return Exit(ended.exit_code, unix_time(ended.started_at), unix_time(ended.finished_at))
