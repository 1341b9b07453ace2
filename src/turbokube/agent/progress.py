"""How far a phase is, in numbers and in one line."""

from __future__ import annotations

import collections

import msgspec

_WINDOW_S = 10.0  # pods/s is over this window
_LONG_WINDOW_S = 60.0  # the time left is guessed from this one


class PhaseProgress(msgspec.Struct, kw_only=True):
    """`intended` is what the whole phase is to make; times in seconds; `eta` None when it cannot be told."""

    phase: str
    kind: str = "create"
    state: str
    words: str = ""  # of a kind whose pods are not what counts
    intended: int = 0
    created: int = 0
    scheduled: int = 0
    running: int = 0
    rate: float = 0.0
    eta: float | None = None
    elapsed: float = 0.0
    note: str = ""
    guard: str = ""  # the guard that stopped it
    paused: bool = False
    away: list[str] = []


class Rate:
    """Pods that began to run, by time, over a moving window."""

    def __init__(self) -> None:
        self._points: collections.deque[tuple[float, int]] = collections.deque()

    def add(self, now: float, running: int) -> None:
        """Note the count of now."""
        self._points.append((now, running))
        while now - self._points[0][0] > _LONG_WINDOW_S:
            self._points.popleft()

    def over(self, window: float = _WINDOW_S) -> float:
        """Pods per second over the last `window` seconds."""
        if len(self._points) < 2:
            return 0.0
        now, running = self._points[-1]
        then, before = next(point for point in self._points if now - point[0] <= window)
        return max(0.0, (running - before) / (now - then)) if now > then else 0.0

    def left(self, remaining: int) -> float | None:
        """Seconds until `remaining` more run, at the rate of the last minute."""
        rate = self.over(_LONG_WINDOW_S)
        return remaining / rate if rate > 0 else None


def line(progress: PhaseProgress) -> str:
    """One line for a person."""
    pods = [
        f"{progress.running:,}/{progress.intended:,} running",
        f"{progress.scheduled:,} scheduled",
        f"{progress.created:,} created",
    ]
    counted = progress.kind == "create" and not progress.words
    parts = pods if counted else [progress.words] if progress.words else []
    if progress.state == "running":
        if counted:
            parts.append(f"{progress.rate:.0f} pods/s")
            parts += [f"about {duration(progress.eta)} left"] if progress.eta is not None else []
        else:
            parts.append(f"{duration(progress.elapsed)}")
        if progress.paused:
            parts.append("paused")
        if progress.away:
            parts.append(f"no answer from {', '.join(progress.away)}")
    else:
        why = f": {progress.note}" if progress.guard else ""
        parts.append(f"{progress.state} after {duration(progress.elapsed)}{why}")
    return f"{progress.phase}: {' · '.join(parts)}"


def duration(seconds: float) -> str:
    """Rounded to what matters: 42 s, 1 min 12 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
