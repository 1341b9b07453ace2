# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# PRIVATE to the collection: may change without notice.

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from turbokube.api.target import Target

# The options of doc fragment _target, and the rules between them:
# library_module({**TARGET_ARGUMENTS, ...}, **TARGET_RULES)
TARGET_ARGUMENTS: dict[str, t.Any] = {
    "target": {"type": "path"},
    "kubeconfig": {"type": "path"},
    "context": {"type": "str"},
}
TARGET_RULES: dict[str, t.Any] = {
    "mutually_exclusive": [("target", "kubeconfig")],
    "required_one_of": [("target", "kubeconfig")],
    "required_by": {"context": "kubeconfig"},
}


def target_of(params: dict[str, t.Any]) -> Target:
    """The target that a module's parameters name.

    Raises what errors_as_failures turns into a message when the file cannot be used.
    """
    from turbokube.api.target import load_target, target_from_kubeconfig

    if params["target"]:
        return load_target(params["target"])
    return target_from_kubeconfig(params["kubeconfig"], params["context"])
