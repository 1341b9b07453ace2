#!/usr/bin/python
# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: run_finding
version_added: 0.1.0
short_description: Judge a claim about control planes by runs
description:
  - Reads the bundles of the runs that a claim's cases name, and writes C(verdict.json).
  - The verdict is V(CONFIRMED) when every rule of the claim holds, V(REFUTED) when one fails, and V(NOT SHOWN) when the
    runs decide neither, or lack what the claim needs.
  - The runs of a case are those called after claim and case (C(04-default-qps-raised)), and those of that name with a
    number behind it. The newest counts, and every other one with its settings, as a repeat. A rule holds or fails only
    if it does so for every pairing of repeats.
  - The bundles are only read. No verdict is a failure of this module.
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
      - It tells the verdict instead.
  idempotent:
    support: full
options:
  claim:
    description:
      - C(name), C(claim), C(source), C(cases) (a dictionary of names and what they are), C(rules) and C(figures).
      - A rule has C(says), C(figure), C(of) (a case), C(holds) (two numbers, V(null) for no end) and, if it needs them,
        C(phase), C(over) (a case, or a number, that the figure is divided by), C(beyond) (outside of these two the rule
        fails) and C(needs) (true, it is no part of the claim, but without it there is no verdict).
      - C(figures) is a list of further figures (C(figure), C(phase)) to tell.
    type: dict
    required: true
  home:
    description: Folder that holds C(runs).
    type: path
    default: .
  dest:
    description: Folder that the verdict is written into, absolute or in O(home); it is made where there is none.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Judge by the runs faster-small and faster-large
  turbokube.scale.run_finding:
    claim:
      name: faster
      claim: Twice the nodes take twice the time.
      source: hearsay
      cases:
        small: 256 nodes
        large: 512 nodes
      rules:
        - says: twice the time
          figure: namespace_seconds
          of: large
          over: small
          holds: [1.8, 2.2]
          beyond: [1.5, 2.5]
    dest: comparisons/faster
"""

RETURN = r"""
verdict:
  description: V(CONFIRMED), V(REFUTED) or V(NOT SHOWN).
  returned: success
  type: str
  sample: CONFIRMED
reasons:
  description: What became of each rule, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["some 16 a second: holds (pods that come to run, defaults: 15.9; holds 12 to 20)"]
figures:
  description: What was measured, one sentence for each figure.
  returned: success
  type: list
  elements: str
  sample: ["pods that come to run, pods/s: defaults 15.9, raised 74.2"]
notes:
  description: What bound each run, and phases that did not come to their end.
  returned: success
  type: list
  elements: str
  sample: ["raised: what bound: all cores of the machine are in use (97% of the load's time); 74.2 pods/s were reached"]
bundles:
  description: The runs that it was judged by, by case.
  returned: success
  type: dict
  sample:
    defaults: [/home/me/runs/04-default-qps-defaults]
path:
  description: Where the verdict is.
  returned: success
  type: str
  sample: comparisons/04-default-qps/verdict.json
"""

import pathlib
import typing as t

from ansible_collections.turbokube.scale.plugins.module_utils._library import errors_as_failures, library_module


def main() -> t.NoReturn:
    module = library_module(
        {
            "claim": {"type": "dict", "required": True},
            "home": {"type": "path", "default": "."},
            "dest": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    home = pathlib.Path(module.params["home"])
    with errors_as_failures(module):
        from turbokube.report.findings import claim_of, write

        written = write(claim_of(module.params["claim"]), home, home / module.params["dest"], dry=module.check_mode)
        module.exit_json(
            changed=written.changed,
            verdict=written.verdict.word,
            reasons=list(written.verdict.reasons),
            figures=list(written.figures),
            notes=list(written.notes),
            bundles={case: [str(folder) for folder in found] for case, found in written.bundles.items()},
            path=str(written.path),
        )


if __name__ == "__main__":
    main()
