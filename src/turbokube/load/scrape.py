"""Phase `scrape`: what the components say at this moment."""

from __future__ import annotations

from turbokube.profile.phases import Scrape

from .work import Context


class ScrapeWork:
    """One phase of kind scrape at work."""

    def __init__(self, context: Context) -> None:
        assert isinstance(context.phase, Scrape)
        self._components = context.phase.components
        self._witness = context.witness

    async def run(self) -> None:
        """Scrape them all once. Raises LoadError if there is none of a name."""
        await self._witness.scrape(self._components)

    def words(self) -> str:
        """Which."""
        return ", ".join(self._components) or "all components"

    def missing(self) -> str:
        """An answer."""
        return f"no answer from {self.words()}"
