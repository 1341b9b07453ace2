"""Phase `pause`: nothing is sent for a while."""

from __future__ import annotations

import asyncio

from turbokube.profile.phases import Pause

from .work import Context


class PauseWork:
    """One phase of kind pause at work."""

    def __init__(self, context: Context) -> None:
        assert isinstance(context.phase, Pause)
        self._seconds = context.phase.duration
        self._elapsed = context.elapsed

    async def run(self) -> None:
        """Wait until its time is over; that in which nobody attends does not count."""
        while (left := self._seconds - self._elapsed()) > 0:
            await asyncio.sleep(min(left, 1.0))

    def words(self) -> str:
        """How long it still is."""
        return f"{max(0.0, self._seconds - self._elapsed()):.0f} s left"

    def missing(self) -> str:
        """The rest of its time."""
        return f"{self.words()} of {self._seconds:g} s"
