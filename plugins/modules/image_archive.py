#!/usr/bin/python

# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_archive
short_description: Pack static executables as container images, without a registry
version_added: 0.1.0
description:
  - Writes an archive in OCI's layout with an image for each executable, which C(ctr images import) takes.
  - For hosts that cannot pull. The images hold the executable and nothing else.
  - It needs ansible-core alone, not the Python library turbokube.
author:
  - TurboKube authors (@turbokube)
extends_documentation_fragment:
  - turbokube.scale._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
    description: An archive that is newer than every executable, and of the same images, is left.
options:
  path:
    description: The archive. What it is made of is kept beside it, in a file with C(.json) added.
    type: path
    required: true
  images:
    description: The images.
    type: list
    elements: dict
    required: true
    suboptions:
      reference:
        description: Name and tag, such as C(registry.k8s.io/kube-apiserver:v1.36.3).
        type: str
        required: true
      binary:
        description: The executable, linked statically.
        type: path
        required: true
      arguments:
        description: What it is given when a container names no command.
        type: list
        elements: str
        default: []
"""

EXAMPLES = r"""
- name: Pack a scheduler
  turbokube.scale.image_archive:
    path: /srv/images/kubernetes.tar
    images:
      - reference: registry.k8s.io/kube-scheduler:v1.36.3
        binary: /usr/local/bin/kube-scheduler
"""

RETURN = r"""
path:
  description: The archive.
  returned: success
  type: str
  sample: /srv/images/kubernetes.tar
"""

import json
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turbokube.scale.plugins.module_utils._binaries import SourceError, architecture
from ansible_collections.turbokube.scale.plugins.module_utils._image import Image, write_archive


def made_of(images: list[Image]) -> list[t.Any]:
    """What tells one archive from another: the images, and each executable's size and time."""
    stats = [os.stat(image.binary) for image in images]
    return [[*image[:3], stat.st_size, stat.st_mtime_ns] for image, stat in zip(images, stats, strict=True)]


def same(path: str, wanted: list[t.Any]) -> bool:
    """Whether the archive is there and was made of the same."""
    try:
        with open(f"{path}.json", encoding="utf-8") as file:
            return bool(json.load(file) == wanted) and os.path.exists(path)
    except (OSError, ValueError):
        return False


def main() -> t.NoReturn:
    """Write the archive unless it is there."""
    image = {
        "reference": {"type": "str", "required": True},
        "binary": {"type": "path", "required": True},
        "arguments": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "images": {"type": "list", "elements": "dict", "required": True, "options": image},
        },
        supports_check_mode=True,
    )
    path = module.params["path"]
    images = [Image(one["reference"], one["binary"], one["arguments"]) for one in module.params["images"]]
    try:
        wanted = made_of(images)
        changed = not same(path, wanted)
        if changed and not module.check_mode:
            write_archive(f"{path}.part", images, architecture())
            os.replace(f"{path}.part", path)
            with open(f"{path}.json", "w", encoding="utf-8") as file:
                json.dump(wanted, file)
    except (OSError, SourceError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, path=path)


if __name__ == "__main__":
    main()
