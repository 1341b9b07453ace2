#!/usr/bin/python
# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: load_phase
version_added: 0.1.0
short_description: Load a Kubernetes control plane, and measure what it does
description:
  - Has the run's agent on the host that this module is applied to, which creates namespaces and deployments,
    watches the pods independently of that, scrapes every component, and keeps it all in the run's bundle.
  - The action plugin of the same name shows every few seconds how far the phase is.
  - A phase that was interrupted goes on where it stopped; the agent's ledger knows what was accepted.
    One that has ended is left as it is.
  - Nobody following for 30 seconds, the agent creates nothing new until somebody does; after 15 minutes it ends.
author:
  - TurboKube authors (@turbokube)
requirements:
  - turbokube
extends_documentation_fragment:
  - turbokube.scale._attributes
  - turbokube.scale._target
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) has the phase O(name) run to its end.
      - V(finished) ends the run. Everything is scraped and counted once more, the bundle becomes one file, the agent
        ends.
      - V(absent) deletes the namespaces that carry the run's label, and waits until they and their pods are gone; then
        what carries it in no namespace, such as custom resource definitions, and with O(job) the load generators.
    type: str
    choices: [present, finished, absent]
    default: present
  state_dir:
    description: Folder of the run's state; the agent's log is in C(log/agent.log).
    type: path
    required: true
  bundle:
    description: Folder of the run's bundle. Required unless O(state=absent).
    type: path
  run:
    description: The run's name, the value of the label C(turbokube.io/run).
    type: str
    required: true
  name:
    description: The phase's name, unique in the run. Either it or O(phases) is required when O(state=present).
    type: str
  phases:
    description:
      - Phases of every kind, instead of one that creates deployments; items as in the variable C(turbokube_phases),
        which docs/phases.md describes. An item is a phase, or has only C(together), a list of phases side by side.
      - They run in their order. Where a phase says nothing, it has what O(namespaces), O(deployments), O(replicas),
        O(concurrency), O(deadline) and the options of the pods say.
    type: list
    elements: dict
  namespaces:
    description: How many namespaces, at least V(1). Required with O(name).
    type: int
  first_namespace:
    description: Number of the first namespace; later phases begin where earlier ones ended.
    type: int
    default: 0
  deployments:
    description: How many deployments in each namespace, at least V(1). Required with O(name).
    type: int
  replicas:
    description: How many pods in each deployment. Required with O(name).
    type: int
  concurrency:
    description: Closed loop, used when O(rate) is V(0); the number of namespaces that are in work at once.
    type: int
    default: 4
  rate:
    description: Open loop; so many deployments a second are created on a fixed schedule, whatever the answers.
    type: float
    default: 0
  seed:
    description: What decides all that is drawn.
    type: int
    default: 0
  placement:
    description: Which vnodes a namespace's pods tolerate; its own, or all, as in M(turbokube.scale.vnode_fleet).
    type: str
    choices: [namespace, cluster]
    default: namespace
  schedulers:
    description: Number of extra schedulers, over which the namespaces are dealt out; V(0) uses default-scheduler.
    type: int
    default: 0
  template:
    description:
      - Path, on the host, of a Jinja2 template of one Deployment, ReplicaSet, StatefulSet or Pod; one is built in.
      - It may use C(name), C(namespace), C(run), C(index), C(namespace_index), C(replicas), C(scheduler), C(taint_key),
        C(taint_value), C(automount_token) and C(requests).
    type: path
  automount_token:
    description: Whether pods mount a ServiceAccount token.
    type: bool
    default: true
  pod_memory:
    description: Memory that each pod requests; empty for none.
    type: str
    default: 32Mi
  pod_cpu:
    description: CPU that each pod requests; empty for none.
    type: str
    default: ""
  deadline:
    description:
      - Seconds after which a phase ends whether all is done or not, from V(1).
      - Time in which the run has no agent, or nobody follows it, does not count.
    type: float
    default: 1800
  timeout:
    description: Seconds to wait for the namespaces to be gone, with O(state=absent).
    type: int
    default: 900
  scrape_interval:
    description: Seconds between two scrapes of a component.
    type: float
    default: 15
  extra_components:
    description: Components to scrape beside those that the target names, such as the fleet.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Unique in the run.
        type: str
        required: true
      kind:
        description: What it is, which decides on the metrics that are kept.
        type: str
        required: true
      url:
        description: Scheme, address and port.
        type: str
        required: true
      metrics_path:
        description: Path of its metrics.
        type: str
        default: /metrics
      ca_file:
        description: Path of the certificate authority's certificate, where it is not that of the target.
        type: path
      token_file:
        description: Path of a token that it is asked with, in place of the scraper's certificate.
        type: path
  job:
    description:
      - Where one load generator is not enough, those that share a phase of kind create, as the pods of an Indexed Job
        of another cluster. Each has a segment of the namespaces, fires their load and watches their pods; what they
        record becomes the run's bundle. The agent of this host scrapes and follows.
    type: dict
    suboptions:
      kubeconfig:
        description: Path of a kubeconfig of the cluster whose workers carry the pods, as its administrator.
        type: path
        required: true
      context:
        description: The context of it; its current one by default.
        type: str
      namespace:
        description: The pods' namespace, as with module M(turbokube.scale.vnode_fleet); C(turbokube-<run>) by default.
        type: str
        default: ""
      segments:
        description: How many load generators there are; no more than namespaces.
        type: int
        required: true
      image:
        description: The image, as module M(turbokube.scale.library_image) makes it.
        type: str
        required: true
      image_pull_policy:
        description: Whether workers ask a registry for it.
        type: str
        choices: [Always, IfNotPresent, Never]
        default: IfNotPresent
      image_pull_secret:
        description: Name of a Secret in O(job.namespace) that opens the registry.
        type: str
        default: ""
      cpu:
        description: The CPU that a pod requests.
        type: str
        default: 100m
      memory:
        description: The memory that a pod requests.
        type: str
        default: 128Mi
      node_selector:
        description: Labels of the workers.
        type: dict
        default: {}
      tolerations:
        description: What of the workers' taints the pods tolerate, as a pod's C(spec.tolerations).
        type: list
        elements: dict
        default: []
  profile:
    description: The settings of the run, for the record; an unfinished run goes on only under the same.
    type: dict
    default: {}
  controller:
    description: Who drives the run; the action plugin sets it.
    type: str
    default: module
  wait_for:
    description: Seconds that one call of the module waits at most; the action plugin sets it.
    type: float
    default: 0
"""

EXAMPLES = r"""
- name: Create 32 namespaces of 256 pods
  turbokube.scale.load_phase:
    target: ~/.turbokube/trial/target.json
    state_dir: ~/.turbokube/trial
    bundle: ~/runs/trial
    run: trial
    name: create
    namespaces: 32
    deployments: 32
    replicas: 8

- name: Replace pods while the API server is asked for lists
  turbokube.scale.load_phase:
    target: ~/.turbokube/trial/target.json
    state_dir: ~/.turbokube/trial
    bundle: ~/runs/trial
    run: trial
    namespaces: 32
    phases:
      - together:
          - {name: roll, kind: roll, of: create, share: 0.5}
          - {name: lists, kind: read, verb: list, resource: pods, rate: 5, duration: 60}

- name: End the run
  turbokube.scale.load_phase:
    target: ~/.turbokube/trial/target.json
    state_dir: ~/.turbokube/trial
    bundle: ~/runs/trial
    run: trial
    state: finished

- name: Remove the load from a cluster that lives on
  turbokube.scale.load_phase:
    kubeconfig: ~/.kube/config
    state_dir: ~/.turbokube/trial
    run: trial
    state: absent
"""

RETURN = r"""
phase_state:
  description:
    - How the phases ended. V(done), all is done; V(deadline), at least one phase was not done in time; V(stopped), a
      guard rail (docs/guards.md) stopped them, and no phase after them was begun.
    - A phase that was stopped for another reason fails the module.
  returned: when O(state=present), not in check mode
  type: str
  sample: done
note:
  description: What kept a phase from being done.
  returned: when O(state=present), not in check mode
  type: str
  sample: ""
progress:
  description: For each phase that the agent followed last, pods intended, created, scheduled and running, and seconds.
  returned: when the agent followed a phase
  type: list
  elements: dict
  sample: [{"phase": "create", "state": "done", "intended": 8192, "created": 8192, "scheduled": 8192, "running": 8192}]
plan:
  description: What each phase would do; for one that creates, objects, of these accepted already, and pods.
  returned: in check mode
  type: list
  elements: dict
  sample: [{"name": "create", "kind": "create", "namespaces": 32, "objects": 1024, "accepted": 0, "pods": 8192}]
deleted:
  description: How many namespaces were deleted.
  returned: when O(state=absent)
  type: int
  sample: 32
"""

import asyncio
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turbokube.scale.plugins.module_utils._arguments import (
    TARGET_ARGUMENTS,
    TARGET_RULES,
    target_of,
)
from ansible_collections.turbokube.scale.plugins.module_utils._library import errors_as_failures, library_module

_COMPONENT = {
    "name": {"type": "str", "required": True},
    "kind": {"type": "str", "required": True},
    "url": {"type": "str", "required": True},
    "metrics_path": {"type": "str", "default": "/metrics"},
    "ca_file": {"type": "path"},
    "token_file": {"type": "path"},
}
_JOB = {
    "kubeconfig": {"type": "path", "required": True},
    "context": {"type": "str"},
    "namespace": {"type": "str", "default": ""},
    "segments": {"type": "int", "required": True},
    "image": {"type": "str", "required": True},
    "image_pull_policy": {"type": "str", "choices": ["Always", "IfNotPresent", "Never"], "default": "IfNotPresent"},
    "image_pull_secret": {"type": "str", "default": "", "no_log": False},
    "cpu": {"type": "str", "default": "100m"},
    "memory": {"type": "str", "default": "128Mi"},
    "node_selector": {"type": "dict", "default": {}},
    "tolerations": {"type": "list", "elements": "dict", "default": []},
}
# what a phase has where it says nothing itself; these are fields of turbokube.profile.phase_input.Defaults
_DEFAULTS: dict[str, t.Any] = {
    "run": {"type": "str", "required": True},
    "namespaces": {"type": "int"},
    "deployments": {"type": "int"},
    "replicas": {"type": "int"},
    "concurrency": {"type": "int", "default": 4},
    "deadline": {"type": "float", "default": 1800},
    "seed": {"type": "int", "default": 0},
    "template": {"type": "path"},
    "placement": {"type": "str", "choices": ["namespace", "cluster"], "default": "namespace"},
    "schedulers": {"type": "int", "default": 0},
    "automount_token": {"type": "bool", "default": True},
    "pod_memory": {"type": "str", "default": "32Mi"},
    "pod_cpu": {"type": "str", "default": ""},
}
_ARGUMENTS: dict[str, t.Any] = {
    **TARGET_ARGUMENTS,
    **_DEFAULTS,
    "name": {"type": "str"},
    "first_namespace": {"type": "int", "default": 0},
    "rate": {"type": "float", "default": 0},
    "phases": {"type": "list", "elements": "dict"},
    "state": {"type": "str", "choices": ["present", "finished", "absent"], "default": "present"},
    "state_dir": {"type": "path", "required": True},
    "bundle": {"type": "path"},
    "timeout": {"type": "int", "default": 900},
    "scrape_interval": {"type": "float", "default": 15},
    "extra_components": {"type": "list", "elements": "dict", "default": [], "options": _COMPONENT},
    "job": {"type": "dict", "options": _JOB},
    "profile": {"type": "dict", "default": {}},
    "controller": {"type": "str", "default": "module"},
    "wait_for": {"type": "float", "default": 0},
}


def main() -> t.NoReturn:
    module = library_module(
        _ARGUMENTS,
        supports_check_mode=True,
        required_if=[
            ("state", "present", ["bundle"]),
            ("state", "present", ["name", "phases"], True),
            ("state", "finished", ["bundle"]),
        ],
        mutually_exclusive=[*TARGET_RULES["mutually_exclusive"], ("name", "phases")],
        required_one_of=TARGET_RULES["required_one_of"],
        required_by={**TARGET_RULES["required_by"], "name": ["namespaces", "deployments", "replicas"]},
    )
    with errors_as_failures(module):
        module.exit_json(
            **{"present": _present, "finished": _finished, "absent": _absent}[module.params["state"]](module)
        )


def _present(module: AnsibleModule) -> dict[str, t.Any]:
    from turbokube.agent import drive

    wish = module.params
    bundle = Path(wish["bundle"])
    groups = _groups(wish, bundle)
    phases = [phase for group in groups for phase in group]
    target, spec = target_of(wish), _spec(wish)
    drive.check(target, bundle, spec, wish["run"])
    if before := drive.ended(bundle, wish["run"], phases):
        return {"changed": False, **_outcome(before)}
    if module.check_mode:
        return {"changed": True, "plan": [drive.plan(bundle, phase) for phase in phases]}
    log, client, changed = Path(wish["state_dir"]) / "log" / "agent.log", _client(wish), False
    progress: list[dict[str, t.Any]] = []
    lines: list[str] = []
    for group in groups:
        answer = drive.advance(client, log, target, spec, group, wish["wait_for"])
        progress, lines, changed = progress + answer["progress"], lines + answer["lines"], answer["begun"]
        if changed or _guarded(progress):
            break
    if stopped := [one for one in progress if one["state"] == "stopped" and not one.get("guard")]:
        why = "; ".join(f"phase {one['phase']} of run {wish['run']} was stopped: {one['note']}" for one in stopped)
        module.fail_json(msg=why, progress=progress)
    return {
        "changed": changed,
        "finished": (len(progress) == len(phases) or _guarded(progress))
        and all(one["state"] != "running" for one in progress),
        "progress_lines": lines,
        "progress": progress,
        **_outcome(progress),
    }


def _groups(wish: dict[str, t.Any], bundle: Path) -> list[tuple[t.Any, ...]]:
    """The phases that are asked for, checked; those of a group run side by side."""
    from turbokube.agent import drive
    from turbokube.load.check import prepared
    from turbokube.profile.phase_input import Defaults, parse, single

    defaults = Defaults(**{name: wish[name] for name in _DEFAULTS if wish[name] is not None})
    if wish["phases"] is None:
        own = {name: wish[name] for name in ("name", "first_namespace", "rate")}
        return [(prepared(single({"kind": "create", **own}, defaults)),)]
    groups = parse(wish["phases"], defaults, path="phases", earlier=drive.begun(bundle))
    return [tuple(prepared(phase) for phase in group) for group in groups]


def _guarded(progress: list[dict[str, t.Any]]) -> bool:
    """Whether a guard has stopped phases: none begins after them."""
    return any(one.get("guard") for one in progress)


def _outcome(found: list[dict[str, t.Any]]) -> dict[str, t.Any]:
    early = [one for one in found if one["state"] in ("stopped", "deadline")]
    return {
        "phase_state": max((one["state"] for one in early), key=("deadline", "stopped").index, default="done"),
        "note": "; ".join(f"{one['phase']}: {one['note']}" if len(found) > 1 else one["note"] for one in early),
    }


def _finished(module: AnsibleModule) -> dict[str, t.Any]:
    from turbokube.agent import drive
    from turbokube.bundle import runs

    wish = module.params
    bundle = Path(wish["bundle"])
    if module.check_mode:
        return {"changed": runs.look(bundle.parent, bundle.name).state == "unfinished"}
    return {"changed": drive.finish(_client(wish), target_of(wish), bundle, _spec(wish), wish["run"])}


def _absent(module: AnsibleModule) -> dict[str, t.Any]:
    from turbokube.load.remove import remove

    wish = module.params
    left = asyncio.run(remove(target_of(wish), wish["run"], wish["timeout"], check=module.check_mode))
    if not module.check_mode and (left["namespaces"] or left.get("pods")):
        module.fail_json(
            msg=f"{left['namespaces']} namespaces of run {wish['run']} are not gone after {wish['timeout']} s; "
            "their pods end only while the fleet runs",
            **left,
        )
    if left.get("others"):
        module.fail_json(msg=f"{left['others']} objects of run {wish['run']} that are in no namespace are left", **left)
    changed = left["deleted"] > 0
    if wish["job"]:
        import msgspec

        from turbokube.workload import job

        how = msgspec.convert(_job(wish["job"]), job.LoadJob)
        changed |= job.absent(wish["run"], how, wish["timeout"], check_mode=module.check_mode)
    return {"changed": changed, **left}


def _spec(wish: dict[str, t.Any]) -> dict[str, t.Any]:
    found = {name: wish[name] for name in ("profile", "scrape_interval", "extra_components")}
    if wish["job"]:
        found["job"] = _job(wish["job"])
    return found


def _job(how: dict[str, t.Any]) -> dict[str, t.Any]:
    """An option `job` as turbokube.workload.job.LoadJob has it."""
    renamed = {"image_pull_policy": "pull", "image_pull_secret": "pull_secret"}
    return {renamed.get(name, name): value for name, value in how.items()}


def _client(wish: dict[str, t.Any]) -> t.Any:
    from turbokube.agent.client import AgentClient

    return AgentClient(Path(wish["state_dir"]), Path(wish["bundle"]), wish["controller"])


if __name__ == "__main__":
    main()
