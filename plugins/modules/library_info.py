#!/usr/bin/python

# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: library_info
short_description: Tell which turbokube library a Python has
version_added: 0.1.0
description:
  - Tells of the Python that it runs in, which is the host's C(ansible_python_interpreter), whether it has the Python
    library turbokube, and of which version.
author:
  - TurboKube authors (@turbokube)
extends_documentation_fragment:
  - turbokube.scale._attributes
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Changes nothing.
"""

EXAMPLES = r"""
- name: Ask for the library of another Python
  turbokube.scale.library_info:
  register: library
  vars:
    ansible_python_interpreter: /opt/turbokube/bin/python
"""

RETURN = r"""
version:
  description: The version of the library; empty where there is none.
  returned: success
  type: str
  sample: 0.1.0
executable:
  description: The path of this Python.
  returned: success
  type: str
  sample: /opt/turbokube/bin/python
python:
  description: The version of this Python.
  returned: success
  type: str
  sample: 3.11.7
"""

import platform
import sys
import typing as t

from ansible.module_utils.basic import AnsibleModule

try:
    from turbokube import __version__ as version
except ImportError:
    version = ""


def main() -> t.NoReturn:
    """Tell what there is."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.exit_json(changed=False, version=version, executable=sys.executable, python=platform.python_version())


if __name__ == "__main__":
    main()
