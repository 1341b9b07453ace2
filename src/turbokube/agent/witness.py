"""What the load may ask the observer and the scraper, which it never meets otherwise."""

from __future__ import annotations

from turbokube.load.phase import LoadError
from turbokube.measure.observer import Observer
from turbokube.measure.scrape import Scraper


class Witnesses:
    """The observer's and the scraper's word, as load/work.py's Witness has it."""

    def __init__(self, observer: Observer, scraper: Scraper) -> None:
        self.pods_run = observer.pods_run
        self.pods_settle = observer.pods_settle
        self.pods_ran = observer.pods_ran
        self.nudge = scraper.nudge
        self._observer = observer
        self._scraper = scraper

    def pods(self, namespaces: list[str]) -> tuple[int, int]:
        """Pods that are there in these namespaces, and those that run."""
        seen = self._observer.progress(namespaces)
        return seen.created, seen.running

    def nodes(self) -> tuple[int, int]:
        """Nodes of the run, and those that are Ready."""
        return self._observer.node_counts()[:2]

    async def scrape(self, components: tuple[str, ...]) -> None:
        """Scrape these components now, all when none is named; raises LoadError if there is none of a name."""
        if unknown := sorted(set(components) - set(self._scraper.names())):
            raise LoadError(f"there is no component {', '.join(unknown)}; there are {', '.join(self._scraper.names())}")
        await self._scraper.now(components)
