"""Remove all of a name, and prove that nothing is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from turbokube.cloud.bill import Bill
from turbokube.cloud.digitalocean import Cloud, CloudError
from turbokube.cloud.held import ORDER, PRICED, Thing, held, note
from turbokube.cloud.plan import Wanted

POLL_S = 5.0
# each waits for the one before: firewalls stay as long as what they guard, and a VPC goes when it is empty. Keys may be
# listed ten times a minute, so they are not looked for while the others go
STAGES = (PRICED, ("firewall", "VPC"), ("SSH key",), ("tag",))


@dataclass
class Removed:
    """What was removed, in words, and what is left, with why; `kinds` were looked through for it."""

    removed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    kinds: tuple[str, ...] = ORDER


def remove(
    cloud: Cloud,
    tag: str,
    bill: Bill,
    timeout: float,
    wanted: Wanted | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Removed:
    """Remove everything that has the tag or is named after it, whoever made it; what is refused is asked for again.

    `timeout`: seconds until the rest is left, and told; `wanted`: the price of a load balancer, which the API does not
    tell. Raises CloudError only where the account cannot be looked at.
    """
    end, refused = clock() + timeout, dict[str, str]()
    seen: dict[str, Thing] = {}
    for kinds in STAGES:
        there = held(cloud, tag, kinds)
        while there and clock() <= end:
            if kinds == PRICED:
                note(bill, there, wanted, time.time())
            seen |= {f"{thing.kind} {thing.key}": thing for thing in there}
            refused = _ask(cloud, there)
            if there := held(cloud, tag, kinds):
                sleep(POLL_S)
                there = held(cloud, tag, kinds)
        if there:
            break
        if kinds == PRICED:
            bill.close(set(), time.time())
    there = held(cloud, tag)  # the proof: whatever was asked for, this is what there is
    left = {f"{thing.kind} {thing.key}" for thing in there}
    return Removed(
        removed=[thing.words for key, thing in seen.items() if key not in left],
        left=[f"{thing.words}{refused.get(thing.words, '')}" for thing in there],
    )


def _ask(cloud: Cloud, things: list[Thing]) -> dict[str, str]:
    """Ask for each to be removed; what is refused, and why. Droplets of a pool go with it: it would make others."""
    pools = {thing.name.replace(".", ":", 1) for thing in things if thing.kind == "pool"}
    refused = {}
    for thing in things:
        if pools.intersection(thing.raw.get("tags") or ()):
            continue
        try:
            cloud.delete(thing.kind, thing.key)
        except CloudError as error:
            refused[thing.words] = f": {error}"
    return refused
