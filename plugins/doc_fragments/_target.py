# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# PRIVATE to the collection: may change without notice.

from __future__ import annotations


class ModuleDocFragment:
    # How a module is told which cluster it acts on; the same as module_utils/_arguments.py
    DOCUMENTATION = r"""
options:
  target:
    description:
      - Path of the file that describes the target, as the role P(turbokube.scale.control_plane#role) writes it.
      - Mutually exclusive with O(kubeconfig); one of the two is required.
    type: path
  kubeconfig:
    description:
      - Path of a kubeconfig of an existing cluster, used for every actor.
    type: path
  context:
    description:
      - The context of O(kubeconfig) to use; its current one by default.
    type: str
"""
