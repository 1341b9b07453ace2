#!/usr/bin/python
# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: actor_kubeconfigs
version_added: 0.1.0
short_description: Make kubeconfigs with client certificates, by kubeadm
description:
  - Has C(kubeadm kubeconfig user) make a kubeconfig for each actor, readable by its owner only.
  - A kubeconfig that is there is kept as long as it is for the same server and the same certificate authority.
author:
  - TurboKube authors (@turbokube)
requirements:
  - turbokube
extends_documentation_fragment:
  - turbokube.scale._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details:
      - A kubeconfig is a secret.
  idempotent:
    support: full
options:
  folder:
    description: Where the kubeconfigs are kept, as C(<name>.conf).
    type: path
    required: true
  actors:
    description: Who gets one.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the file without its ending.
        type: str
        required: true
      user:
        description: Common name of the certificate, which is the user's name to Kubernetes.
        type: str
        required: true
      groups:
        description: Organizations of the certificate, which are the user's groups to Kubernetes.
        type: list
        elements: str
        default: []
  kubeadm:
    description: Path of kubeadm.
    type: path
    required: true
  config:
    description: Path of kubeadm's configuration, which names the folder of the certificate authority.
    type: path
    required: true
  server:
    description: Address of the API server, as this configuration has it.
    type: str
    required: true
  ca_file:
    description: Certificate of the certificate authority, as this configuration has it.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Make the observer's credential
  turbokube.scale.actor_kubeconfigs:
    folder: /home/me/.turbokube/trial/kubeconfigs
    kubeadm: /usr/local/bin/kubeadm
    config: /home/me/.turbokube/trial/kubeadm.yaml
    server: https://127.0.0.1:6443
    ca_file: /home/me/.turbokube/trial/pki/ca.crt
    actors:
      - name: observer
        user: turbokube:observer
"""

RETURN = r"""
made:
  description: Names of the actors that got a new kubeconfig.
  returned: always
  type: list
  elements: str
  sample: [observer]
paths:
  description: The kubeconfig of each actor.
  returned: always
  type: dict
  sample: {observer: /home/me/.turbokube/trial/kubeconfigs/observer.conf}
"""

import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turbokube.scale.plugins.module_utils._library import errors_as_failures, library_module

_ACTOR = {
    "name": {"type": "str", "required": True},
    "user": {"type": "str", "required": True},
    "groups": {"type": "list", "elements": "str", "default": []},
}


def main() -> t.NoReturn:
    module = library_module(
        {
            "folder": {"type": "path", "required": True},
            "actors": {"type": "list", "elements": "dict", "required": True, "options": _ACTOR},
            "kubeadm": {"type": "path", "required": True},
            "config": {"type": "path", "required": True},
            "server": {"type": "str", "required": True},
            "ca_file": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    with errors_as_failures(module):
        module.exit_json(**_apply(module))


def _apply(module: AnsibleModule) -> dict[str, t.Any]:
    from turbokube.supervise import Actor, Issuer

    params, folder = module.params, Path(module.params["folder"])
    issuer = Issuer(params["kubeadm"], params["config"], params["server"], Path(params["ca_file"]))
    actors = [Actor(**actor) for actor in params["actors"]]
    missing = issuer.missing(folder, actors)
    if not module.check_mode:
        for actor in missing:
            issuer.issue(folder, actor)
    return {
        "changed": bool(missing),
        "made": [actor.name for actor in missing],
        "paths": {actor.name: str(folder / f"{actor.name}.conf") for actor in actors},
    }


if __name__ == "__main__":
    main()
