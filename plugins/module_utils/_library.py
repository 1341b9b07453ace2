# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# PRIVATE to the collection: may change without notice.

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
import typing as t

from ansible.module_utils.basic import AnsibleModule

_MISSING = None
try:
    importlib.import_module("turbokube.api")
except ImportError:
    _MISSING = traceback.format_exc()


def library_module(argument_spec: dict[str, t.Any], **rules: t.Any) -> AnsibleModule:
    """A module that needs the turbokube library; fails with what to do where the interpreter does not have it."""
    module = AnsibleModule(argument_spec=argument_spec, **rules)
    if _MISSING is not None:
        module.fail_json(
            msg=f"The Python library turbokube is missing from {sys.executable}: apply the role "
            "turbokube.scale.library to this host before, or set ansible_python_interpreter to a Python that has it.",
            exception=_MISSING,
        )
    return module


@contextlib.contextmanager
def errors_as_failures(module: AnsibleModule) -> t.Iterator[None]:
    """Turn what the library raises for its user into the module's failure, in one sentence.

    msgspec's errors are ValueErrors; ConnectionError and TimeoutError are OSErrors.
    """
    from turbokube.api.credentials import CredentialError
    from turbokube.api.transport import ApiError, Unreachable
    from turbokube.daemon.control import ControlError

    try:
        yield
    except (CredentialError, ControlError, ApiError, Unreachable, ValueError) as error:
        module.fail_json(msg=str(error), exception=traceback.format_exc())
    except OSError as error:
        words = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        module.fail_json(msg=words, exception=traceback.format_exc())
