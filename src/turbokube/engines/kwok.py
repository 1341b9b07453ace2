"""Engine kwok: Nodes that this makes, KWOK controllers of 10,000 each that play stages of our own with them."""

from __future__ import annotations

import importlib.resources
from typing import Any

import msgspec
import yaml

from .. import disk
from ..vnode import behaviour
from ..vnode.addresses import FALLBACK
from ..vnode.nodes import LEASES, NODES
from ..vnode.spec import RUN_LABEL, Spec
from .foreman import Foreman
from .members import Member

GROUP = 10_000  # nodes of one controller, as in k8s-1m's record
GROUP_LABEL = "turbokube.io/kwok-group"
_LEASES = 64  # renewals under way at once, as many as engine builtin allows itself
_SPREAD = 0.02  # status reports drift apart by as much of their interval, else a restart would have them come at once
# the hexadecimal digits of a pod's UID (random but for digits 12 and 16) that decide an option, and its second draw
_DIGITS = {
    "start_delay": ("0:6", "26:32"),
    "ready_delay": ("6:12", "0:6"),
    "run_time": ("26:32", "20:26"),
    "stop_delay": ("20:26", "6:12"),
}
_MOST = {"stop_delay": ".metadata.deletionGracePeriodSeconds"}


def engine(foreman: Foreman) -> Kwok:
    return Kwok(foreman)


class Kwok:
    def __init__(self, foreman: Foreman) -> None:
        self._foreman = foreman

    async def adopt(self) -> None:
        disk.replace(self._foreman.folder / "stages.yaml", stages(self._foreman.spec).encode())
        await self._release(None)

    async def join(self, member: Member) -> None:
        await self._have_controller(group_of(member))
        if member.uid:
            return
        answer = await self._foreman.client.call("create", "nodes", "POST", NODES, self._node(member))
        if answer.status == 409:
            await self._foreman.own(member)
        answer.checked()  # one that is gone by now leaves the 409, which is tried again

    async def leave(self, member: Member) -> None:
        pass

    async def left(self, member: Member) -> None:
        """The controller of a group goes before its last Lease does, which it could bring back."""
        others = (other for other in self._foreman.members.by_name.values() if other is not member)
        if all(group_of(other) != group_of(member) for other in others):
            await self._foreman.children.stop(_name(group_of(member)))

    def closed(self) -> None:
        pass

    async def revive(self, name: str) -> None:
        await self._release(int(name.rpartition("-")[2]))

    async def _release(self, group: int | None) -> None:
        """A Lease names the controller that holds it, and the next one would wait until it expires."""
        members = self._foreman.members.by_name.values()

        async def release(member: Member) -> None:
            await self._foreman.delete("leases", LEASES, member.name)
            member.leased = False

        await self._foreman.crew.each(release, [m for m in members if m.leased and group in (None, group_of(m))])

    async def _have_controller(self, group: int) -> None:
        if _name(group) in self._foreman.children:
            return
        foreman, folder = self._foreman, self._foreman.folder
        argv = [
            foreman.spec.binary,
            f"--kubeconfig={foreman.kubeconfig(folder / f'{group}.conf', group)}",
            f"--config={folder / 'stages.yaml'}",
            f"--manage-nodes-with-label-selector={RUN_LABEL}={foreman.spec.run},{GROUP_LABEL}={group}",
            f"--node-lease-duration-seconds={foreman.spec.lease_duration}",
            f"--cidr={FALLBACK}",
            "--v=WARN",
        ]
        foreman.children.start(_name(group), argv, {"HOME": str(folder)})  # where it looks for a configuration, too

    def _node(self, member: Member) -> bytes:
        """As engine builtin registers it, but for the conditions: those are KWOK's to set."""
        made = self._foreman.node(member)
        made["metadata"]["labels"][GROUP_LABEL] = str(group_of(member))
        del made["status"]["conditions"]
        return msgspec.json.encode(made)


def group_of(member: Member) -> int:
    return member.index // GROUP


def _name(group: int) -> str:
    return f"kwok-{group}"


def stages(spec: Spec) -> str:
    """KWOK's configuration for a fleet: kwok_stages.yaml with the spec's values, in YAML."""
    values: dict[str, Any] = {
        "connections": spec.connections,
        "leases": _LEASES,
        "status_least": round(spec.status_interval * 1000 * (1 - _SPREAD)),
        "status_most": round(spec.status_interval * 1000 * (1 + _SPREAD)),
    }
    for option in _DIGITS:
        values[f"{option}_text"] = _plain(getattr(spec, option))
        values[option] = _delay(spec, option)
    documents = list(yaml.safe_load_all(_data("kwok_stages.yaml")))
    named = {document["metadata"]["name"]: document for document in documents}
    values["steps"] = named["pod-complete"]["spec"]["steps"]
    return yaml.safe_dump_all([_filled(document, values) for document in documents], sort_keys=False)


def _delay(spec: Spec, option: str) -> str:
    """delay.jq for an option."""
    first, second = _DIGITS[option]
    texts = {
        "seed": str(spec.seed * 2654435761 % 2**24),  # Knuth's multiplier: near seeds are far from each other
        "annotation": f"turbokube.io/{option.replace('_', '-')}",
        "text": _plain(getattr(spec, option)) or "0",
        "most": _MOST.get(option, "86400"),
        "u": first,
        "v": second,
    }
    lines = [line for line in _data("delay.jq").splitlines() if not line.startswith("#")]
    return str(_filled("\n".join(lines), texts))


def _plain(text: str) -> str:
    """A duration in the one notation that delay.jq reads; empty where none is given."""
    if not text:
        return ""
    said = behaviour.parse(text)
    numbers = {"uniform": f"{said.a},{said.b}", "lognormal": f"{said.a},{said.b}"}.get(said.kind, f"{said.a:.12g}")
    return numbers if said.kind == "constant" else f"{said.kind}({numbers})"


def _filled(part: Any, values: dict[str, Any]) -> Any:
    """The same structure with @name@ replaced; a text that is nothing else becomes the value itself."""
    if isinstance(part, dict):
        return {key: _filled(value, values) for key, value in part.items()}
    if isinstance(part, list):
        return [_filled(value, values) for value in part]
    if not isinstance(part, str):
        return part
    for name, value in values.items():
        if part == f"@{name}@":
            return value
        if isinstance(value, str):
            part = part.replace(f"@{name}@", value)
    return part


def _data(name: str) -> str:
    return importlib.resources.files(__package__ or "").joinpath(name).read_text()
