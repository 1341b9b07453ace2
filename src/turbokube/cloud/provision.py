"""Make what a plan wants and is not there, and wait until all of it is up."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from turbokube.cloud.bill import Bill
from turbokube.cloud.digitalocean import Cloud, CloudError, Doubtful, Object
from turbokube.cloud.held import PRICED, Thing, address, held, note
from turbokube.cloud.plan import Group, Wanted

MOST_AT_ONCE = 10  # droplets of one request
ROUNDS = 5  # of making what is missing: each begins with a look at what there is
POLL_S = 5.0
REPLACEMENTS = 1  # of droplets that do not come up


@dataclass
class Done:
    """What changed, in words, and the load balancer's address, empty without one."""

    made: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    endpoint: str = ""


class Provision:
    """One attempt at a plan. `timeout`: seconds for droplets, pools and the load balancer to come up."""

    def __init__(
        self,
        cloud: Cloud,
        wanted: Wanted,
        public_key: str,
        bill: Bill,
        timeout: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cloud, self._wanted, self._key, self._bill = cloud, wanted, public_key, bill
        self._timeout, self._sleep, self._clock = timeout, sleep, clock
        self._done = Done()
        self._vpc = self._fingerprint = ""

    def run(self) -> Done:
        """Bring everything up. What an interrupted attempt left is used; what is not wanted any more is removed.

        Raises CloudError; what was made until then stays, is on the bill, and the next attempt or a removal finds it.
        """
        try:
            self._ground()
            self._spare()
            self._droplets()
            self._rest()
            self._await()
            return self._done
        finally:
            self._note()

    def _ground(self) -> None:
        """What droplets need to exist: tags, a key, the VPC, and firewalls before anything could be reached."""
        wanted, things = self._wanted, held(self._cloud, self._wanted.tag)
        names = {(thing.kind, thing.name) for thing in things}
        groups = dict.fromkeys(name for group in wanted.groups for name in (group.name, *group.also))
        for tag in (wanted.tag, *map(wanted.group_tag, groups)):
            if ("tag", tag) not in names:
                self._once("tag", {"name": tag})
        for thing in things:
            if thing.kind == "SSH key" and thing.raw["public_key"].split()[:2] != self._key.split()[:2]:
                self._cloud.delete("SSH key", thing.key)  # of a folder that is lost
                names.discard(("SSH key", thing.name))
        if ("SSH key", wanted.tag) not in names:
            self._once("SSH key", {"name": wanted.tag, "public_key": self._key})
        if ("VPC", wanted.tag) not in names:
            self._once("VPC", {"name": wanted.tag, "region": wanted.region, "ip_range": wanted.network})
        for body in _firewalls(wanted):
            if ("firewall", body["name"]) not in names:
                self._once("firewall", body)
        made = {thing.kind: thing for thing in held(self._cloud, wanted.tag, ("VPC", "SSH key"))}
        self._vpc, self._fingerprint = made["VPC"].key, made["SSH key"].raw["fingerprint"]

    def _spare(self) -> None:
        """Remove droplets that the plan has not, or has twice since an answer was lost; the oldest stays."""
        seen: Counter[str] = Counter()
        pools = {self._wanted.group_tag(group.name) for group in self._wanted.groups if group.most}
        names = {host for group in self._wanted.groups for host in group.hosts}
        for thing in sorted(held(self._cloud, self._wanted.tag, ("droplet",)), key=lambda one: int(one.key)):
            if pools.intersection(thing.raw["tags"]):
                continue
            seen[thing.name] += 1
            if thing.name not in names or seen[thing.name] > 1:
                self._remove(thing)

    def _droplets(self) -> None:
        """Make those that are missing. An answer that is lost is followed by a look, never by the same request."""
        trouble: CloudError | None = None
        for attempt in range(ROUNDS):
            if attempt:
                self._sleep(POLL_S)
            there = {thing.name for thing in held(self._cloud, self._wanted.tag, ("droplet",))}
            missing = list(self._batches(there))
            if not missing:
                return
            for group, names in missing:
                try:
                    self._make("droplet", self._body(group, names))
                except Doubtful as error:
                    trouble = error
                    break
        there = {thing.name for thing in held(self._cloud, self._wanted.tag, ("droplet",))}
        if names := [name for _group, batch in self._batches(there) for name in batch]:
            raise CloudError(f"droplets {', '.join(names)} could not be made: {trouble}")
        self._spare()

    def _batches(self, there: set[str]) -> Iterator[tuple[Group, list[str]]]:
        for group in self._wanted.groups:
            names = [name for name in group.hosts if name not in there]
            for start in range(0, len(names), MOST_AT_ONCE):
                yield group, names[start : start + MOST_AT_ONCE]

    def _body(self, group: Group, names: list[str]) -> Object:
        return {"names": names, **self._template(group)}

    def _template(self, group: Group) -> Object:
        return {
            "region": self._wanted.region,
            "size": group.size,
            "image": self._wanted.image,
            "ssh_keys": [self._fingerprint],
            "vpc_uuid": self._vpc,
            "tags": [self._wanted.tag, *map(self._wanted.group_tag, (group.name, *group.also))],
            **({"user_data": self._wanted.user_data} if self._wanted.user_data else {}),
            "with_droplet_agent": bool(group.most),  # a pool goes by what it tells
        }

    def _rest(self) -> None:
        """The load balancer and pools, which are found by name."""
        wanted = self._wanted
        things = {(thing.kind, thing.name): thing for thing in held(self._cloud, wanted.tag, ("load balancer", "pool"))}
        bodies = [("load balancer", self._balancer())] if wanted.balancer else []
        bodies += [("pool", self._pool(group)) for group in wanted.groups if group.most]
        for kind, body in bodies:
            if (kind, body["name"]) not in things:
                self._once(kind, body)
        for key, thing in things.items():
            if key not in {(kind, body["name"]) for kind, body in bodies}:
                self._remove(thing)

    def _once(self, kind: str, body: Object) -> None:
        """Make something that is known by its name; after a lost answer, look for it."""
        for attempt in range(ROUNDS):
            try:
                return self._make(kind, body)
            except Doubtful:
                self._sleep(POLL_S)
                if any(thing.name == body["name"] for thing in held(self._cloud, self._wanted.tag, (kind,))):
                    return None
                if attempt == ROUNDS - 1:
                    raise
        return None

    def _balancer(self) -> Object:
        balancer = self._wanted.balancer
        assert balancer is not None
        port = {
            "entry_protocol": "tcp",
            "entry_port": balancer.port,
            "target_protocol": "tcp",
            "target_port": balancer.port,
        }
        return {
            "name": self._wanted.tag,
            "region": self._wanted.region,
            "type": balancer.type,
            "network": "INTERNAL",
            "size_unit": balancer.nodes,
            "vpc_uuid": self._vpc,
            "tag": self._wanted.group_tag(balancer.group),
            "forwarding_rules": [port],
            "health_check": {"protocol": "https", "port": balancer.port, "path": "/healthz"},
        }

    def _pool(self, group: Group) -> Object:
        config: Object = {"min_instances": group.count, "max_instances": group.most, "cooldown_minutes": 5}
        if group.memory_utilization:
            config["target_memory_utilization"] = group.memory_utilization
        else:
            config = {"target_number_instances": group.count}
        template = {"name": group.name.replace("_", "-"), **self._template(group)}
        return {"name": f"{self._wanted.tag}.{group.name}", "config": config, "droplet_template": template}

    def _await(self) -> None:
        """Wait until all is active. A droplet that does not come up is made again, once."""
        for replacement in range(REPLACEMENTS + 1):
            end = self._clock() + self._timeout
            while (late := self._late()) and self._clock() < end:
                self._sleep(POLL_S)
            if not late:
                return
            again = [thing for thing in late if thing.kind == "droplet" and not self._pooled(thing)]
            if not again or replacement == REPLACEMENTS:
                break
            for thing in again:
                self._remove(thing)
            self._gone({thing.key for thing in again})
            self._droplets()
        names = ", ".join(thing.words for thing in late)
        hourly = self._note().usd_per_hour()
        raise CloudError(
            f"not up after {self._timeout:g} s: {names}. What there is costs {hourly:.2f} USD an hour: "
            "try again, or remove it with digitalocean_state=absent."
        )

    def _gone(self, keys: set[str]) -> None:
        end = self._clock() + self._timeout
        while keys & {thing.key for thing in held(self._cloud, self._wanted.tag, ("droplet",))}:
            if self._clock() > end:
                raise CloudError(
                    f"droplets {', '.join(sorted(keys))} are still there {self._timeout:g} s after they were removed"
                )
            self._sleep(POLL_S)

    def _late(self) -> list[Thing]:
        """What is not up."""
        late = []
        for thing in held(self._cloud, self._wanted.tag, PRICED):
            raw = thing.raw
            if thing.kind == "droplet":
                up = raw["status"] == "active" and bool(address(raw, "private"))
            elif thing.kind == "pool":
                least = raw["config"].get("min_instances") or raw["config"].get("target_number_instances", 0)
                up = raw["status"] == "active" and raw["active_resources_count"] >= least
            else:
                self._done.endpoint = raw.get("ip") or ""
                up = raw["status"] == "active" and bool(raw.get("ip"))
            if not up:
                late.append(thing)
        return late

    def _pooled(self, thing: Thing) -> bool:
        pools = {self._wanted.group_tag(group.name) for group in self._wanted.groups if group.most}
        return bool(pools.intersection(thing.raw["tags"]))

    def _make(self, kind: str, body: Object) -> None:
        self._cloud.create(kind, body)
        names = body.get("names") or [body["name"]]
        self._done.made += [f"{kind} {name}" for name in names]

    def _remove(self, thing: Thing) -> None:
        self._cloud.delete(thing.kind, thing.key)
        self._done.removed.append(thing.words)

    def _note(self) -> Bill:
        """Keep what there is on the bill, if the API tells."""
        with contextlib.suppress(CloudError):
            note(self._bill, held(self._cloud, self._wanted.tag, PRICED), self._wanted, time.time())
        return self._bill


def _firewalls(wanted: Wanted) -> list[Object]:
    """One for all droplets: only the VPC comes in. One more for the group that is the way in: SSH from given ranges."""
    every = ({"protocol": "tcp", "ports": "0"}, {"protocol": "udp", "ports": "0"}, {"protocol": "icmp", "ports": "0"})
    return [
        {
            "name": wanted.tag,
            "tags": [wanted.tag],
            "inbound_rules": [{**rule, "sources": {"addresses": [wanted.network]}} for rule in every],
            "outbound_rules": [{**rule, "destinations": {"addresses": ["0.0.0.0/0", "::/0"]}} for rule in every],
        },
        {
            "name": f"{wanted.tag}.ssh",
            "tags": [wanted.group_tag(wanted.ssh_group)],
            "inbound_rules": [{"protocol": "tcp", "ports": "22", "sources": {"addresses": list(wanted.ssh_from)}}],
        },
    ]
