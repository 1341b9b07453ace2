#!/usr/bin/python

# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: library_image
short_description: Pack the library, and the Python that has it, as a container image
version_added: 0.1.0
description:
  - Writes an archive in OCI's layout, which C(ctr images import) takes, of the Python that this module runs with, its
    standard library, the library turbokube with what its engine and its agent import, and the shared libraries that any
    of them is linked with. There is nothing else in it, no distribution and no shell.
  - No registry is asked unless O(push=true), and no image built upon. The workers need the builder's architecture, and
    nothing of it else.
  - The image's tag is the library's version and a digest of all that is in it.
author:
  - TurboKube authors (@turbokube)
requirements:
  - turbokube
  - C(ldd)
extends_documentation_fragment:
  - turbokube.scale._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  folder:
    description: Where the archive is kept, as C(turbokube-<digest>.tar). Archives of other digests are removed from it.
    type: path
    required: true
  repository:
    description: What the image's name begins with.
    type: str
    default: localhost/turbokube
  push:
    description: Whether to send the image to the registry that O(repository) begins with, over HTTPS, unless it has it.
    type: bool
    default: false
  registry_url:
    description: The registry's URL, where it is not C(https://) and its host.
    type: str
    default: ""
  username:
    description: Who the registry knows.
    type: str
    default: ""
  password:
    description: By what.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Pack the library
  turbokube.scale.library_image:
    folder: /srv/images
  register: packed

- name: Pack it for a cluster whose workers are reached by nobody
  turbokube.scale.library_image:
    folder: /srv/images
    repository: registry.example.com/load/turbokube
    push: true
    username: me
    password: "{{ lookup('ansible.builtin.env', 'REGISTRY_PASSWORD') }}"
"""

RETURN = r"""
path:
  description: The archive.
  returned: success
  type: str
  sample: /srv/images/turbokube-0f343b0931ad.tar
image:
  description: The image's name and tag.
  returned: success
  type: str
  sample: localhost/turbokube:0.1.0-0f343b0931ad
"""

import contextlib
import os
import pathlib
import typing as t

from ansible_collections.turbokube.scale.plugins.module_utils import _python
from ansible_collections.turbokube.scale.plugins.module_utils._binaries import SourceError, architecture
from ansible_collections.turbokube.scale.plugins.module_utils._image import Image, write_archive
from ansible_collections.turbokube.scale.plugins.module_utils._library import library_module
from ansible_collections.turbokube.scale.plugins.module_utils._registry import Registry, RegistryError, split


def write(path: pathlib.Path, reference: str, files: _python.Files) -> None:
    """Write the archive at one stroke; those of other digests go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    binary = _python.executable()
    environment = (f"PYTHONPATH={_python.SITE}", "PYTHONDONTWRITEBYTECODE=1")
    image = Image(reference, binary, [], place=binary, files=tuple(files), environment=environment)
    write_archive(f"{path}.part", [image], architecture())
    os.replace(f"{path}.part", path)
    for other in path.parent.glob("turbokube-*.tar"):
        if other != path:
            with contextlib.suppress(OSError):
                other.unlink()


def pushed(wish: dict[str, t.Any], path: str, reference: str, check_mode: bool) -> bool:
    """Have the registry have the image; whether that changed it."""
    host, repository, tag = split(reference)
    registry = Registry(wish["registry_url"] or f"https://{host}", repository, wish["username"], wish["password"])
    if registry.has(tag):
        return False
    if not check_mode:
        registry.push(path, tag)
    return True


def main() -> t.NoReturn:
    """Write the archive unless it is there."""
    module = library_module(
        {
            "folder": {"type": "path", "required": True},
            "repository": {"type": "str", "default": "localhost/turbokube"},
            "push": {"type": "bool", "default": False},
            "registry_url": {"type": "str", "default": ""},
            "username": {"type": "str", "default": ""},
            "password": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    import turbokube

    try:
        files = _python.files()
        digest = _python.digest(files)
        path = pathlib.Path(module.params["folder"], f"turbokube-{digest}.tar")
        reference = f"{module.params['repository']}:{turbokube.__version__}-{digest}"
        changed = not path.exists()
        if changed and not module.check_mode:
            write(path, reference, files)
        if module.params["push"]:
            changed |= pushed(module.params, str(path), reference, module.check_mode)
    except (OSError, _python.PythonError, SourceError, RegistryError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, path=str(path), image=reference)


if __name__ == "__main__":
    main()
