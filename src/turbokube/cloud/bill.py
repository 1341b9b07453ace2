"""What was bought, from when to when, and what it cost; kept on disk, since a provider forgets what is gone."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from turbokube.cloud.plan import rows
from turbokube.disk import replace

# DigitalOcean bills by the second since January 2026, at least a minute or a cent, whichever is more
LEAST_SECONDS = 60.0
LEAST_USD = 0.01


@dataclass
class Purchase:
    """One thing with a price. Times are seconds since 1970; `until` is 0 while it is there."""

    what: str
    name: str
    size: str
    usd_per_hour: float
    since: float
    until: float = 0.0

    def seconds(self, now: float) -> float:
        """How long it has been there."""
        return max(0.0, (self.until or now) - self.since)

    def usd(self, now: float) -> float:
        """What it has cost."""
        billed = max(self.seconds(now), LEAST_SECONDS)
        return max(self.usd_per_hour * billed / 3600, LEAST_USD) if self.usd_per_hour else 0.0


class Bill:
    """The purchases of a name, by the provider's ids; every change is on disk before the next is made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.purchases: dict[str, Purchase] = {}
        if path.exists():
            self.purchases = {key: Purchase(**found) for key, found in json.loads(path.read_text()).items()}

    @property
    def runs(self) -> bool:
        """Whether anything of it is still there."""
        return any(not one.until for one in self.purchases.values())

    def begin(self, now: float) -> None:
        """Put a bill aside of which nothing is there any more: what comes is another's."""
        if self.purchases and not self.runs:
            stamp = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
            self._path.rename(self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}"))
            self.purchases = {}

    def keep(self, key: str, purchase: Purchase) -> None:
        """Note a purchase, once."""
        if key not in self.purchases:
            self.purchases[key] = purchase
            self._save()

    def close(self, there: set[str], now: float) -> None:
        """Note that all but these are gone."""
        gone = [one for key, one in self.purchases.items() if not one.until and key not in there]
        for one in gone:
            one.until = now
        if gone:
            self._save()

    def usd(self, now: float) -> float:
        """What all has cost."""
        return sum(one.usd(now) for one in self.purchases.values())

    def hours(self, now: float) -> float:
        """Since when the oldest that is still there has been."""
        return max((one.seconds(now) for one in self.purchases.values() if not one.until), default=0.0) / 3600

    def usd_per_hour(self) -> float:
        """What goes on being charged."""
        return sum(one.usd_per_hour for one in self.purchases.values() if not one.until)

    def lines(self, now: float) -> list[str]:
        """The bill as a table: a row for each size, and the sum."""
        table = [[*row] for row in self._rows(now)]
        columns = ("what", "size", "count", "hours", "USD/h each", "USD")
        return [
            *rows(columns, table),
            f"cost: {self.usd(now):.2f} USD, by the provider's prices and the time it was there",
        ]

    def _rows(self, now: float) -> Iterator[tuple[str, ...]]:
        kinds = dict.fromkeys((one.what, one.size) for one in self.purchases.values())
        for what, size in kinds:
            of = [one for one in self.purchases.values() if (one.what, one.size) == (what, size)]
            hours, usd = sum(one.seconds(now) for one in of) / 3600, sum(one.usd(now) for one in of)
            yield what, size, str(len(of)), f"{hours:.2f}", f"{of[0].usd_per_hour:.5f}", f"{usd:.2f}"

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        text = json.dumps({key: asdict(one) for key, one in self.purchases.items()}, indent=1)
        replace(self._path, text.encode())
