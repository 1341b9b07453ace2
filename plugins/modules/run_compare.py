#!/usr/bin/python
# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: run_compare
version_added: 0.1.0
short_description: Hold runs against each other
description:
  - Reads the bundles of two or more groups of runs and writes C(compare.html) and C(compare.json), settings that differ
    first, then indicators with their differences, then the verdicts side by side.
  - Runs of one group are repeats. With two or more in both groups a difference has its 95 % interval (Welch); with one
    its uncertainty is said to be unknown.
  - The bundles are only read, those of older versions too. The HTML file is self-contained and opens offline.
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
      - The files are too large for it.
  idempotent:
    support: full
options:
  groups:
    description:
      - The groups, in the order of the page. The first is what the others are held against.
    type: list
    elements: dict
    required: true
    suboptions:
      label:
        description: What the group is called on the page.
        type: str
        required: true
      bundles:
        description:
          - Folders of bundles, absolute or in O(home). A name without a folder is a run in C(runs) of O(home).
          - V(*) and V(?) stand for any letters, as in V(a-*); of what they match, bundles are taken.
        type: list
        elements: path
        required: true
  home:
    description: Folder that relative ones are in; the current one by default.
    type: path
    default: .
  dest:
    description: Folder that the files are written into, absolute or in O(home); it is made where there is none.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Hold two runs with another setting against three without
  turbokube.scale.run_compare:
    groups:
      - label: baseline
        bundles: [a, a-2, a-3]
      - label: candidate
        bundles: [b, /srv/other/runs/b]
    dest: comparisons/b
  register: comparison

- name: Show what differs
  ansible.builtin.debug:
    var: comparison.differences
"""

RETURN = r"""
verdicts:
  description: The verdict of each run of each group.
  returned: success
  type: dict
  sample:
    baseline:
      a: PASS
      a-2: PASS
weaknesses:
  description: What weakens the comparison, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["candidate has one run: how far numbers move by themselves is unknown, so no difference is sure."]
differences:
  description: Settings that differ, then indicators that differ beyond chance, one sentence each.
  returned: success
  type: list
  elements: str
  sample:
    - "profile turbokube_client_qps: baseline 16000, candidate 20"
    - "Throughput, mean: 86.1 ± 1.2 → candidate 16.2 ± 0.1 pods/s (−69.9 (−81.2 %), −73.1 to −66.7): worse"
paths:
  description: Where each file is.
  returned: success
  type: dict
  sample:
    html: comparisons/b/compare.html
    json: comparisons/b/compare.json
"""

import pathlib
import typing as t

from ansible_collections.turbokube.scale.plugins.module_utils._library import errors_as_failures, library_module

_GROUP = {
    "label": {"type": "str", "required": True},
    "bundles": {"type": "list", "elements": "path", "required": True},
}


def main() -> t.NoReturn:
    module = library_module(
        {
            "groups": {"type": "list", "elements": "dict", "required": True, "options": _GROUP},
            "dest": {"type": "path", "required": True},
            "home": {"type": "path", "default": "."},
        },
        supports_check_mode=True,
    )
    groups, home = module.params["groups"], pathlib.Path(module.params["home"])
    labels = [group["label"] for group in groups]
    for label in labels:
        if labels.count(label) > 1:
            module.fail_json(msg=f"two groups are called {label}; labels tell groups apart")
    with errors_as_failures(module):
        from turbokube.report.compare import find, write

        bundles = {group["label"]: find(home, group["bundles"]) for group in groups}
        written = write(bundles, home / module.params["dest"], dry=module.check_mode)
        module.exit_json(
            changed=bool(written.changed),
            verdicts=written.verdicts,
            weaknesses=list(written.warnings),
            differences=list(written.differences),
            paths={path.suffix[1:]: str(path) for path in written.paths.values()},
        )


if __name__ == "__main__":
    main()
