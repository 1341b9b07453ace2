#!/usr/bin/python
# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: run_report
version_added: 0.1.0
short_description: Write the report of a run, with its verdict
description:
  - Reads the bundle of a run and writes C(report.html), C(report.json) and C(junit.xml) into its folder, and
    C(namespaces.csv), the time of each namespace, where whole namespaces were created.
  - The HTML file is self-contained and opens offline.
  - The bundle itself is only read, so a report can be written again at any time, also by a newer version.
  - A verdict other than V(PASS) is no failure of this module.
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
  bundle:
    description: Folder of the run's bundle, which holds C(bundle.sqlite).
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Report on a run
  turbokube.scale.run_report:
    bundle: runs/quickstart
  register: report

- name: Go on only with a run that passed
  ansible.builtin.assert:
    that: report.verdict == "PASS"
    fail_msg: "{{ report.reasons | join('; ') }}"
"""

RETURN = r"""
verdict:
  description: V(PASS), V(FAIL) or V(INCONCLUSIVE). Empty in check mode when there is no bundle yet.
  returned: success
  type: str
  sample: PASS
line:
  description: The verdict in one line, with its first reason. Empty in check mode when there is no bundle yet.
  returned: success
  type: str
  sample: "quickstart: PASS: all 28 gates held"
reasons:
  description: Why, one sentence each; outages and interruptions are named here too.
  returned: success
  type: list
  elements: str
  sample: ["all 28 gates held"]
headline:
  description: The numbers on top of the report, with their conditions.
  returned: success
  type: list
  elements: str
  sample: ["Pods running: 8,192 of 8,192 (0 lost, 0 restarted)"]
paths:
  description: Where each file of the report is; C(namespaces) only where there is that file.
  returned: success
  type: dict
  sample:
    html: runs/quickstart/report.html
    json: runs/quickstart/report.json
    junit: runs/quickstart/junit.xml
    namespaces: runs/quickstart/namespaces.csv
"""

import pathlib
import typing as t

from ansible_collections.turbokube.scale.plugins.module_utils._library import errors_as_failures, library_module


def main() -> t.NoReturn:
    module = library_module({"bundle": {"type": "path", "required": True}}, supports_check_mode=True)
    folder = pathlib.Path(module.params["bundle"])
    paths = {
        "html": str(folder / "report.html"),
        "json": str(folder / "report.json"),
        "junit": str(folder / "junit.xml"),
        "namespaces": str(folder / "namespaces.csv"),
    }
    with errors_as_failures(module):
        from turbokube.bundle.writer import BundleError
        from turbokube.report.render import write

        if module.check_mode and not folder.exists():
            module.exit_json(changed=True, verdict="", line="", reasons=[], headline=[], paths=paths)
        try:
            written = write(folder, dry=module.check_mode)
        except BundleError as error:
            module.fail_json(msg=str(error))
        if "namespaces.csv" not in written.paths:
            del paths["namespaces"]
        module.exit_json(
            changed=bool(written.changed),
            verdict=written.verdict,
            line=written.line,
            reasons=list(written.reasons),
            headline=list(written.headline),
            paths=paths,
        )


if __name__ == "__main__":
    main()
