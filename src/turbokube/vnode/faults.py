"""Nodes that fall silent, are not ready or disappear: a share of the vnodes, at a time after the fleet was complete.

A silent one is a machine that is cut off: no Lease, no status, nothing of its pods. One that is not ready says so, goes
on renewing and ends pods, but starts none: its network is not there. One that disappears is deleted, as a cloud's
controller does with a machine that is gone, and joins anew when it is back. Which vnodes, the seed decides.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from pathlib import Path

import msgspec

from .nodes import DISAPPEAR, NOT_READY, SILENCE, Nodes
from .pods import Pods
from .spec import Fault, Spec

_LOOK = 0.2  # seconds between two looks at the clock
_NAMED = 5  # vnodes that the log names
log = logging.getLogger(__name__)


class _Record(msgspec.Struct):
    """What the engine that takes over must know: since when the fleet was complete, for which faults."""

    faults: list[Fault]
    seed: int
    complete: float


class _Plan:
    """One fault: not begun, under way with these vnodes, or over."""

    def __init__(self, fault: Fault, number: int) -> None:
        self.fault = fault
        self.number = number
        self.begun = self.over = False
        self.indices: list[int] = []


class Faults:
    """What befalls the vnodes of one engine process. `file` outlives it."""

    def __init__(self, spec: Spec, nodes: Nodes, pods: Pods, file: Path | None = None) -> None:
        self._spec = spec
        self._nodes = nodes
        self._pods = pods
        self._file = file
        self._plans = [_Plan(fault, number) for number, fault in enumerate(spec.faults)]
        self._complete = self._recorded()  # UNIX time; 0: not yet

    def status(self) -> dict[str, int]:
        """How many vnodes are under which fault now."""
        under = list(self._nodes.faults.values())
        return {action: under.count(action) for action in (SILENCE, NOT_READY, DISAPPEAR)}

    async def run(self) -> None:
        """Let them come and go, for ever."""
        while True:
            self.look(time.time())
            await asyncio.sleep(_LOOK)

    def look(self, now: float) -> None:
        """Begin and end what is due at `now`."""
        if not self._complete:
            if not self._nodes.complete:
                return
            self._complete = now
            self._write()
        for plan in self._plans:
            begins = self._complete + plan.fault.after
            ends = begins + plan.fault.duration if plan.fault.duration else float("inf")
            if not plan.begun and now >= begins:
                plan.begun = True
                if now < ends:
                    self._begin(plan)
            if plan.begun and not plan.over and now >= ends:
                plan.over = True
                self._end(plan)

    def rebase(self) -> None:
        """The fleet is to have another size: what has not begun counts from when it is complete again."""
        if self._plans and not any(plan.begun for plan in self._plans):
            self._complete = 0.0

    # one fault

    def _begin(self, plan: _Plan) -> None:
        spec, fault = self._nodes.spec, plan.fault
        seed = f"{spec.seed}/fault/{plan.number}"
        if spec.block:  # no process knows how many others there are: each vnode by itself
            chosen = [index for index in spec.indices if random.Random(f"{seed}/{index}").random() < fault.share]
        else:
            chosen = sorted(random.Random(seed).sample(range(spec.count), round(spec.count * fault.share)))
        plan.indices = [index for index in chosen if spec.owns(index) and index not in self._nodes.faults]
        lasts = f"for {fault.duration:g} s" if fault.duration else "for good"
        log.warning("fault: %s of %d vnodes %s: %s", fault.action, len(plan.indices), lasts, self._named(plan))
        for index in plan.indices:
            self._pods.hold(spec.name(index), starts=fault.action == NOT_READY)
            self._nodes.befall(index, fault.action)

    def _end(self, plan: _Plan) -> None:
        if plan.indices:
            log.warning("fault over: %s of %d vnodes: %s", plan.fault.action, len(plan.indices), self._named(plan))
        for index in plan.indices:
            self._nodes.recover(index)
            self._pods.resume(self._spec.name(index))

    def _named(self, plan: _Plan) -> str:
        names = [self._spec.name(index) for index in plan.indices]
        return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")

    # what the next engine is told

    def _recorded(self) -> float:
        try:
            found = msgspec.json.decode(self._file.read_bytes(), type=_Record) if self._file else None
        except (OSError, msgspec.MsgspecError):
            return 0.0
        same = found is not None and (found.faults, found.seed) == (self._spec.faults, self._spec.seed)
        return found.complete if found is not None and same else 0.0

    def _write(self) -> None:
        if self._file is not None:
            self._file.write_bytes(msgspec.json.encode(_Record(self._spec.faults, self._spec.seed, self._complete)))
