# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import typing as t

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turbokube.scale.plugins.module_utils import _library
from ansible_collections.turbokube.scale.plugins.module_utils._arguments import (
    TARGET_ARGUMENTS,
    TARGET_RULES,
    target_of,
)

NOTHING = "/nowhere/at/all"


def failure(arguments: dict[str, t.Any], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a module that reads its target."""

    def main() -> None:
        module = _library.library_module(TARGET_ARGUMENTS, **TARGET_RULES)
        with _library.errors_as_failures(module):
            target_of(module.params)

    with patch_module_args(arguments), pytest.raises(SystemExit):
        main()
    result = json.loads(capsys.readouterr().out)
    assert result["failed"]
    return str(result["msg"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": NOTHING}, f"{NOTHING}: No such file or directory"),
        ({"kubeconfig": NOTHING}, f"kubeconfig {NOTHING} cannot be read: No such file or directory"),
        ({"target": NOTHING, "kubeconfig": NOTHING}, "parameters are mutually exclusive: target|kubeconfig"),
        ({}, "one of the following is required: target, kubeconfig"),
    ],
)
def test_what_the_library_raises_is_one_sentence(
    arguments: dict[str, t.Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failure(arguments, capsys) == message


def test_a_missing_library_names_the_role(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_library, "_MISSING", "ModuleNotFoundError")
    assert "role turbokube.scale.library" in failure({"target": NOTHING}, capsys)
