"""A bundle written by hand, row by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import Writer

SLI = "apiserver_request_sli_duration_seconds_bucket"


class Bundle:
    """Each method adds something and gives the bundle back; `read` ends it."""

    def __init__(self, folder: Path) -> None:
        self.writer = Writer(folder)
        self.folder, self.ids = folder, 0

    def series(self, component: str, metric: str, values: dict[float, float], **labels: str) -> Bundle:
        self.ids += 1
        kind = component.rstrip("0123456789").rstrip("-")
        self.writer.insert("series", [(self.ids, component, kind, metric, json.dumps(labels, sort_keys=True), "")])
        self.writer.insert("samples", [(self.ids, time, value) for time, value in values.items()])
        return self

    def calls(self, component: str, time: float, counts: dict[str, float], **labels: str) -> Bundle:
        for le, count in counts.items():
            self.series(component, SLI, {0.0: 0.0, time: count}, le=le, **labels)
        return self

    def scraped(self, component: str, *times: float, ok: int = 1) -> Bundle:
        self.writer.insert("scrapes", [(component, time, 0.1, ok, None, 1) for time in times])
        return self

    def rows(self, table: str, *rows: tuple[Any, ...]) -> Bundle:
        self.writer.insert(table, rows)
        return self

    def deployment(
        self, name: str, replicas: int, intended: float | None, *, kind: str = "Deployment", stateless: int | None = 1,
        phase: str = "create",
    ) -> Bundle:  # fmt: skip
        row = (phase, kind, "ns", name, intended, intended, intended, 201, 0, 0, 0, replicas, None, stateless)
        return self.rows("objects", row)

    def action(self, verb: str, name: str, moment: float, replicas: int | None = None, *, kind: str = "Deployment",
               answered: bool = True) -> Bundle:  # fmt: skip
        self.ids += 1
        accepted = moment if answered else None
        row = ("later", self.ids, verb, kind, "ns", name, moment, moment, accepted, 200, 0, 0, 0, None, replicas)
        return self.rows("actions", row)

    def pod(self, uid: str, owner: str, *, created: float, seen: float, started: float | None, ran: float | None,
            listed: int = 0, gone: float | None = None, phase: str | None = None) -> Bundle:  # fmt: skip
        times = (created, seen, None, None, started, ran, gone)
        return self.rows("pods", (uid, "ns", uid, owner, "n0", *times, listed, 0, phase))

    def life(self, uid: str, owner: str, created: float, ran: float | None, gone: float | None = None) -> Bundle:
        """A pod whose clocks agree."""
        return self.pod(uid, owner, created=created, seen=created, started=ran, ran=ran, gone=gone)

    def phase(self, name: str, begin: float, end: float | None, state: str = "done", **spec: Any) -> Bundle:
        return self.rows("phases", (name, spec.get("kind", "create"), json.dumps(spec), begin, end, state, ""))

    def read(self) -> Reader:
        self.writer.close(finish=True)
        return Reader(self.folder)
