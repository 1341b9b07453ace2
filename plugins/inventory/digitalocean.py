# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: digitalocean
version_added: 0.1.0
short_description: Droplets of one name, in the groups that their tags say
description:
  - Finds the droplets that M(turbokube.scale.digitalocean_hosts) made under a name, by their tag. Each is in group
    C(digitalocean) and in those of its tags C(turbokube-<name>:<group>).
  - C(ansible_host) is the address inside the VPC, by which hosts know each other.
  - Each host has C(digitalocean_public), C(digitalocean_private), C(digitalocean_size) and
    C(digitalocean_usd_per_hour). All have the load balancer's address, if there is one, as C(digitalocean_balancer).
  - Without a token there are no hosts, which is told.
author:
  - TurboKube authors (@turbokube)
requirements:
  - turbokube
  - pydo
options:
  plugin:
    description: Always C(turbokube.scale.digitalocean). The file's name ends with C(digitalocean.yml).
    required: true
    choices: [turbokube.scale.digitalocean]
  name:
    description: What the hosts are known by.
    type: str
    default: default
    env:
      - name: TURBOKUBE_CLOUD
  token:
    description: The account's token; it may read droplets and load balancers.
    type: str
    env:
      - name: DIGITALOCEAN_ACCESS_TOKEN
      - name: DIGITALOCEAN_TOKEN
  endpoint:
    description: Address of the API; DigitalOcean's own if it is empty.
    type: str
    default: ""
    env:
      - name: DIGITALOCEAN_ENDPOINT
"""

EXAMPLES = r"""
plugin: turbokube.scale.digitalocean
name: trial
"""

import typing as t

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

if t.TYPE_CHECKING:
    from turbokube.cloud.held import Host


class InventoryModule(BaseInventoryPlugin):
    """Ansible's way to the droplets."""

    NAME = "turbokube.scale.digitalocean"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith(("digitalocean.yml", "digitalocean.yaml"))

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path)
        self._read_config_data(path)
        self.inventory.add_group("digitalocean")
        if not self.get_option("token"):
            self.display.warning("There is no DIGITALOCEAN_ACCESS_TOKEN, so the inventory has no droplets.")
            return
        try:
            from turbokube.cloud.digitalocean import Cloud
            from turbokube.cloud.held import held, hosts
            from turbokube.cloud.plan import tag_of

            tag = tag_of(self.get_option("name"))
            cloud = Cloud(self.get_option("token"), self.get_option("endpoint"))
            found, balancers = hosts(cloud, tag), held(cloud, tag, ("load balancer",))
        except (ImportError, ValueError) as error:
            raise AnsibleParserError(f"{path}: {error}") from None
        for host in found:
            self._add(host)
        for balancer in balancers:
            self.inventory.set_variable("all", "digitalocean_balancer", balancer.raw.get("ip") or "")

    def _add(self, host: Host) -> None:
        for group in ("digitalocean", *host.groups):
            self.inventory.add_group(group)
            self.inventory.add_host(host.name, group=group)
        told = {"private": host.private, "public": host.public, "size": host.size, "usd_per_hour": host.usd_per_hour}
        for name, value in {"ansible_host": host.private, **{f"digitalocean_{k}": v for k, v in told.items()}}.items():
            self.inventory.set_variable(host.name, name, value)
