#!/usr/bin/python
# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: record_load
version_added: 0.1.0
short_description: Record what is done to a cluster's workloads, as a trace
description:
  - Writes a trace of the creations, deletions, scalings and rolls of Deployments, StatefulSets, DaemonSets,
    ReplicaSets, Jobs and Pods. A phase of kind V(replay) does the same again, at any speed, on a control plane of
    yours.
  - A cluster is watched for O(duration); without one, the trace is told from the objects that are there and the Events
    that are left. A bundle's trace is what its ledger says.
  - Nothing is written to the cluster. A trace has times, kinds, numbers of replicas, requests and sizes; no images,
    commands, environments or labels, and no names unless O(keep_names) says so. Secrets and ConfigMaps are not read.
author:
  - TurboKube authors (@turbokube)
requirements:
  - turbokube
extends_documentation_fragment:
  - turbokube.scale._attributes
attributes:
  check_mode:
    support: partial
    details:
      - A cluster is not asked; the file is said to change.
  diff_mode:
    support: none
    details:
      - The file is compressed.
  idempotent:
    support: partial
    details:
      - A bundle gives the same trace again, a cluster seldom does.
options:
  kubeconfig:
    description:
      - Path of a kubeconfig of the cluster. It must allow to list and watch the kinds named above and, without
        O(duration), to list Events.
      - One of O(kubeconfig), O(target) and O(bundle) is required; they exclude each other.
    type: path
  context:
    description: The context of O(kubeconfig) to use; its current one by default.
    type: str
  target:
    description: Path of the file that describes a target, as the role P(turbokube.scale.control_plane#role) writes it.
    type: path
  bundle:
    description: Folder of the bundle of a run.
    type: path
  dest:
    description: The trace, by custom C(*.jsonl.gz).
    type: path
    required: true
  duration:
    description:
      - How long to watch, in seconds. V(0) watches nothing, and reconstructs.
      - Use C(async) and C(poll) of the task for what is longer than a connection lasts.
    type: float
    default: 0
  window:
    description:
      - Without O(duration), how far back to go, in seconds. What is older is taken as there before.
      - Events are kept for an hour by default.
    type: float
    default: 3600
  namespaces:
    description: Only these namespaces.
    type: list
    elements: str
    default: []
  exclude_namespaces:
    description: Not these namespaces. Ignored where O(namespaces) says which.
    type: list
    elements: str
    default: [kube-system, kube-public, kube-node-lease]
  keep_names:
    description: Keep the names of namespaces and objects. By default they become numbers.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Record ten minutes of a cluster
  turbokube.scale.record_load:
    kubeconfig: ~/.kube/config
    duration: 600
    dest: traces/shop.jsonl.gz
  async: 660
  poll: 5

- name: Tell the last hour from what is left of it
  turbokube.scale.record_load:
    kubeconfig: ~/.kube/config
    dest: traces/last-hour.jsonl.gz

- name: Make a trace of a run
  turbokube.scale.record_load:
    bundle: runs/quickstart
    dest: traces/quickstart.jsonl.gz
"""

RETURN = r"""
header:
  description: The first line of the trace.
  returned: when a trace was made
  type: dict
  sample:
    turbokube_trace: 1
    method: watched
    kubernetes: v1.36.3
    began: 1780000000.0
    seconds: 600.0
    namespaces: 12
    operations: 431
    notes: []
counts:
  description: Operations by verb and kind.
  returned: when a trace was made
  type: dict
  sample:
    create:
      Deployment: 120
      Job: 60
    scale:
      Deployment: 251
path:
  description: Where the trace is.
  returned: success
  type: str
  sample: traces/shop.jsonl.gz
"""

import asyncio
import pathlib
import typing as t

from ansible_collections.turbokube.scale.plugins.module_utils._arguments import target_of
from ansible_collections.turbokube.scale.plugins.module_utils._library import errors_as_failures, library_module

_ARGUMENTS: dict[str, t.Any] = {
    "kubeconfig": {"type": "path"},
    "context": {"type": "str"},
    "target": {"type": "path"},
    "bundle": {"type": "path"},
    "dest": {"type": "path", "required": True},
    "duration": {"type": "float", "default": 0},
    "window": {"type": "float", "default": 3600},
    "namespaces": {"type": "list", "elements": "str", "default": []},
    "exclude_namespaces": {
        "type": "list", "elements": "str", "default": ["kube-system", "kube-public", "kube-node-lease"],
    },
    "keep_names": {"type": "bool", "default": False},
}  # fmt: skip
_SOURCES = ("kubeconfig", "target", "bundle")


def main() -> t.NoReturn:
    module = library_module(
        _ARGUMENTS,
        supports_check_mode=True,
        mutually_exclusive=[_SOURCES],
        required_one_of=[_SOURCES],
        required_by={"context": "kubeconfig"},
    )
    wish = module.params
    path = pathlib.Path(wish["dest"])
    for name in ("duration", "window"):
        if wish[name] < 0:
            module.fail_json(msg=f"{name} is {wish[name]:g}; it must be at least 0 seconds")
    with errors_as_failures(module):
        from turbokube.bundle import trace

        if module.check_mode and not wish["bundle"]:
            module.exit_json(changed=True, path=str(path))
        made = trace.of_bundle(wish["bundle"], keep_names=wish["keep_names"]) if wish["bundle"] else _record(wish)
        new = trace.encode(made)
        changed = not path.is_file() or path.read_bytes() != new
        if changed and not module.check_mode:
            trace.write(made, path)
        module.exit_json(changed=changed, path=str(path), header=made.header.told(), counts=made.counts())


def _record(wish: dict[str, t.Any]) -> t.Any:
    from turbokube.collect.reconstruct import reconstruct
    from turbokube.collect.record import Choice, watch

    target = target_of(wish)
    choice = Choice(frozenset(wish["namespaces"]), frozenset(wish["exclude_namespaces"]))
    if wish["duration"]:
        return asyncio.run(watch(target, wish["duration"], choice, keep_names=wish["keep_names"]))
    return asyncio.run(reconstruct(target, wish["window"], choice, keep_names=wish["keep_names"]))


if __name__ == "__main__":
    main()
