"""What a DigitalOcean account holds: kept on disk, with the provider's rules, delays and refusals.

Written from the provider's published API description; only what provisioning and teardown ask for.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from turbokube import disk

Object = dict[str, Any]
REGIONS = ["ams3", "fra1", "nyc3", "sfo3"]
# slug: vCPU, MiB, disk in GB, USD a month, USD an hour
SIZES = {
    "s-1vcpu-1gb": (1, 1024, 25, 6.0, 0.00893),
    "s-2vcpu-4gb": (2, 4096, 80, 24.0, 0.03571),
    "g-4vcpu-16gb-intel": (4, 16384, 50, 151.0, 0.2247),
    "m-2vcpu-16gb-intel": (2, 16384, 50, 99.0, 0.14732),
    "m-8vcpu-64gb-intel": (8, 65536, 200, 396.0, 0.58929),
    "so-8vcpu-64gb-intel": (8, 65536, 1800, 582.0, 0.86607),
}
KINDS = ("droplets", "autoscale_pools", "load_balancers", "firewalls", "vpcs", "ssh_keys", "tags")


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.status, self.name = status, name


class Hosts(Protocol):
    """What droplets and load balancers are made of."""

    def up(self, name: str, address: str, keys: list[str]) -> None: ...
    def down(self, name: str) -> None: ...
    def balance(self, name: str, address: str, port: int, backends: list[str]) -> None: ...
    def unbalance(self, name: str) -> None: ...


class Air:
    """Hosts of which nothing is there."""

    def up(self, name: str, address: str, keys: list[str]) -> None: ...
    def down(self, name: str) -> None: ...
    def balance(self, name: str, address: str, port: int, backends: list[str]) -> None: ...
    def unbalance(self, name: str) -> None: ...


class Account:
    """One account. `limit`: of droplets; `boot_s`, `gone_s`: until what is made is active, what is deleted gone.

    `stuck`: names of droplets to be that never become active, one taken for each that is made.
    """

    def __init__(
        self,
        path: Path,
        hosts: Hosts | None = None,
        boot_s: float = 0.0,
        gone_s: float = 0.0,
        limit: int = 100,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.lock = threading.RLock()
        self.stuck: list[str] = []
        self.limit, self.status = limit, "active"
        self._path, self._hosts, self._clock = path, hosts or Air(), clock
        self._boot_s, self._gone_s = boot_s, gone_s
        self._work = ThreadPoolExecutor(4)
        self._jobs: dict[str, Future[None]] = {}
        self.state: dict[str, dict[str, Object]] = {kind: {} for kind in KINDS}
        self._next = 500_000_001
        if path.exists():
            kept = json.loads(path.read_text())
            self.state, self._next = kept["state"], kept["next"]

    def save(self) -> None:
        """Keep all on disk."""
        disk.replace(self._path, json.dumps({"state": self.state, "next": self._next}, indent=1).encode())

    def told(self) -> Object:
        """What the API tells of the account itself."""
        who = {"email": "unit@example.org", "email_verified": True, "uuid": "unit", "floating_ip_limit": 3}
        return {**who, "droplet_limit": self.limit, "status": self.status, "status_message": ""}

    def listed(self, kind: str) -> list[Object]:
        """What the API shows of a kind, at this moment."""
        self._advance()
        return [{name: value for name, value in one.items() if name[0] != "_"} for one in self.state[kind].values()]

    def one(self, kind: str, key: str) -> Object:
        """One of a kind; 404 where there is none."""
        self._advance()
        if key not in self.state[kind]:
            raise Refused(404, "not_found", "The resource you were accessing could not be found.")
        return self.state[kind][key]

    def droplets(self, body: Object) -> list[Object]:
        """Make one, or up to ten."""
        names = body.get("names") or [body["name"]]
        if len(names) > 10:
            raise _invalid("You may only create up to 10 Droplets at a time.")
        for name in names:
            if not re.fullmatch(r"[a-zA-Z0-9]?[a-z0-9A-Z.\-]*[a-z0-9A-Z]", name):
                raise _invalid("Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)")
        self._template(body)
        self._advance()
        if len(self.state["droplets"]) + len(names) > self.limit:
            raise _invalid("creating this/these droplet(s) will exceed your droplet limit")
        for tag in body.get("tags") or []:
            self.tag({"name": tag})
        return [self._droplet(name, body) for name in names]

    def pool(self, body: Object) -> Object:
        """Make an autoscale pool, and its droplets."""
        template, config = body["droplet_template"], body["config"]
        self._template(template)
        least = config.get("min_instances") or config.get("target_number_instances", 0)
        if not 1 <= least <= config.get("max_instances", least):
            raise _invalid("config is invalid")
        one = {"name": body["name"], "config": config, "droplet_template": template, "status": "active"}
        one |= {"id": str(uuid.uuid4()), "active_resources_count": 0, **self._times()}
        self.state["autoscale_pools"][one["id"]] = one
        self._fill(one)
        return one

    def balancer(self, body: Object) -> Object:
        """Make a load balancer."""
        if any(one["name"] == body["name"] for one in self.state["load_balancers"].values()):
            raise _invalid("name is already in use")
        one = {**body, "id": str(uuid.uuid4()), "status": "new", "ip": "", **self._times()}
        one["region"] = _region(body["region"])
        one["_ready"] = self._clock() + self._boot_s
        one["_address"] = self._free_address(body["vpc_uuid"])
        self.state["load_balancers"][one["id"]] = one
        return one

    def firewall(self, body: Object) -> Object:
        """Make a firewall."""
        if missing := set(body.get("tags") or []) - set(self.state["tags"]):
            raise _invalid(f"tags do not exist: {', '.join(sorted(missing))}")
        if any(one["name"] == body["name"] for one in self.state["firewalls"].values()):
            raise Refused(409, "conflict", "duplicate name")
        if not body.get("inbound_rules") and not body.get("outbound_rules"):
            raise _invalid("must specify at least one rule")
        one = {"outbound_rules": [], **body, "id": str(uuid.uuid4()), "status": "succeeded", **self._times()}
        self.state["firewalls"][one["id"]] = one
        return one

    def vpc(self, body: Object) -> Object:
        """Make a VPC; ranges of an account do not overlap."""
        wanted = ipaddress.ip_network(body["ip_range"])
        for one in self.state["vpcs"].values():
            if one["name"] == body["name"]:
                raise _invalid("name is already in use")
            if ipaddress.ip_network(one["ip_range"]).overlaps(wanted):
                raise _invalid("This range/size overlaps with another VPC network in your account.")
        one = {**body, "id": str(uuid.uuid4()), "default": False, **self._times()}
        self.state["vpcs"][one["id"]] = one
        return one

    def key(self, body: Object) -> Object:
        """Take an SSH key."""
        if any(one["public_key"] == body["public_key"] for one in self.state["ssh_keys"].values()):
            raise _invalid("SSH Key is already in use on your account")
        digest = hashlib.md5(base64.b64decode(body["public_key"].split()[1]), usedforsecurity=False).hexdigest()
        fingerprint = ":".join(digest[place : place + 2] for place in range(0, 32, 2))
        one = {**body, "id": self._number(), "fingerprint": fingerprint}
        self.state["ssh_keys"][str(one["id"])] = one
        return one

    def tag(self, body: Object) -> Object:
        """Make a tag, or find it."""
        if not re.fullmatch(r"[a-zA-Z0-9_\-:]{1,255}", body["name"]):
            raise _invalid("Tag name is invalid")
        return self.state["tags"].setdefault(body["name"], {"name": body["name"], "resources": {"count": 0}})

    def delete(self, kind: str, key: str) -> None:
        """Begin to remove one."""
        one = self.one(kind, key)
        if kind == "vpcs":
            members = [
                d for k in ("droplets", "load_balancers") for d in self.state[k].values() if d["vpc_uuid"] == key
            ]
            if members:
                raise Refused(403, "forbidden", "Can not delete VPC with members")
        if kind in ("droplets", "autoscale_pools", "load_balancers"):
            one.setdefault("_gone", self._clock() + self._gone_s)
            if kind == "autoscale_pools":
                one["status"] = "deleting"
                for droplet in self._members(one):
                    self.delete("droplets", str(droplet["id"]))
        else:
            del self.state[kind][key]
        if kind == "tags":
            for droplet in self.state["droplets"].values():
                droplet["tags"] = [tag for tag in droplet["tags"] if tag != key]

    def _droplet(self, name: str, body: Object) -> Object:
        number = self._number()
        _cpu, memory, storage, *_prices = SIZES[body["size"]]
        one = {"id": number, "name": name, "memory": memory, "vcpus": _cpu, "disk": storage, "locked": False}
        one |= {"status": "new", "created_at": self._times()["created_at"], "features": [], "backup_ids": []}
        one |= {"next_backup_window": None, "snapshot_ids": [], "image": {"slug": body["image"]}, "volume_ids": []}
        one |= {"size": size(body["size"]), "size_slug": body["size"], "networks": {"v4": [], "v6": []}}
        one |= {"region": _region(body["region"]), "tags": list(body.get("tags") or []), "vpc_uuid": body["vpc_uuid"]}
        one |= {"_ready": self._clock() + self._boot_s, "_address": self._free_address(body["vpc_uuid"])}
        if name in self.stuck:
            self.stuck.remove(name)
            one["_ready"] = float("inf")
        else:
            others = {other["_host"] for other in self.state["droplets"].values() if "_host" in other}
            one["_host"] = name if name not in others else f"{name}-{number}"
            keys = [k["public_key"] for k in self.state["ssh_keys"].values() if k["fingerprint"] in body["ssh_keys"]]
            self._jobs[str(number)] = self._work.submit(self._hosts.up, one["_host"], one["_address"], keys)
        self.state["droplets"][str(number)] = one
        return one

    def _advance(self) -> None:
        """Let time pass: what was made becomes active, what was deleted goes."""
        now = self._clock()
        for key, one in list(self.state["droplets"].items()):
            job = self._jobs.get(key)
            if one.get("_gone", float("inf")) <= now and (not job or job.done()):
                if "_host" in one:
                    self._hosts.down(one["_host"])
                del self.state["droplets"][key]
            elif one["status"] == "new" and one["_ready"] <= now and (not job or job.done()):
                if job:
                    job.result()
                one["status"] = "active"
                public = getattr(self._hosts, "public", None) or f"203.0.113.{one['id'] % 250 + 1}"
                private = {"ip_address": one["_address"], "type": "private"}
                outer = {"ip_address": one["_address"] if public == "private" else public, "type": "public"}
                one["networks"]["v4"] = [outer, private]
        for key, one in list(self.state["load_balancers"].items()):
            if one.get("_gone", float("inf")) <= now:
                self._hosts.unbalance(one["id"])
                del self.state["load_balancers"][key]
            elif one["_ready"] <= now:
                self._balance(one)
        for key, one in list(self.state["autoscale_pools"].items()):
            one["active_resources_count"] = sum(droplet["status"] == "active" for droplet in self._members(one))
            if one.get("_gone", float("inf")) <= now and not self._members(one):
                del self.state["autoscale_pools"][key]
            elif one["status"] == "active":
                self._fill(one)

    def _balance(self, one: Object) -> None:
        active = [d for d in self.state["droplets"].values() if one["tag"] in d["tags"] and d["status"] == "active"]
        backends = sorted(droplet["_address"] for droplet in active)
        if one["status"] != "active" or backends != one.get("_backends"):
            self._hosts.balance(one["id"], one["_address"], one["forwarding_rules"][0]["entry_port"], backends)
        one.update(status="active", ip=one["_address"], _backends=backends)

    def _fill(self, pool: Object) -> None:
        """What an autoscaler sees to: droplets that are missing are made."""
        least = pool["config"].get("min_instances") or pool["config"]["target_number_instances"]
        for _ in range(least - len(self._members(pool))):
            if len(self.state["droplets"]) >= self.limit:
                pool["status"] = "error"
                return
            template = pool["droplet_template"]
            for tag in template.get("tags") or []:
                self.tag({"name": tag})
            self._droplet(template["name"], template)["_pool"] = pool["id"]

    def _members(self, pool: Object) -> list[Object]:
        return [one for one in self.state["droplets"].values() if one.get("_pool") == pool["id"]]

    def _template(self, body: Object) -> None:
        if body.get("size") not in SIZES:
            raise _invalid("You specified an invalid size for Droplet creation.")
        if body.get("region") not in REGIONS:
            raise _invalid("You specified an invalid region for Droplet creation.")
        if not body.get("image"):
            raise _invalid("You specified an invalid image for Droplet creation.")
        if unknown := set(body.get("ssh_keys") or []) - {k["fingerprint"] for k in self.state["ssh_keys"].values()}:
            raise _invalid(f"{', '.join(unknown)} are invalid key identifiers for Droplet creation.")
        if body.get("vpc_uuid") not in self.state["vpcs"]:
            raise _invalid("VPC not found")

    def _free_address(self, vpc: str) -> str:
        taken = {one["_address"] for kind in ("droplets", "load_balancers") for one in self.state[kind].values()}
        # the first two are the provider's
        hosts = list(ipaddress.ip_network(self.state["vpcs"][vpc]["ip_range"]).hosts())[2:]
        return next(text for text in map(str, hosts) if text not in taken)

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _times(self) -> Object:
        text = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"created_at": text, "updated_at": text}


def size(slug: str) -> Object:
    """A size as the API shows it."""
    vcpus, memory, storage, monthly, hourly = SIZES[slug]
    return {
        "slug": slug,
        "vcpus": vcpus,
        "memory": memory,
        "disk": storage,
        "transfer": 4.0,
        "price_monthly": monthly,
        "price_hourly": hourly,
        "regions": [region for region in REGIONS if not (slug.startswith("so-") and region == "sfo3")],
        "available": True,
        "description": "Basic",
    }


def _region(slug: str) -> Object:
    return {"slug": slug, "name": slug, "features": [], "available": True, "sizes": list(SIZES)}


def _invalid(message: str) -> Refused:
    return Refused(422, "unprocessable_entity", message)
