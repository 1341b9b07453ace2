"""What is generated from the schema: docs/variables.md and playbooks/profiles/base.yml."""

from __future__ import annotations

import json
from typing import Any

from turbokube.profile.schema import SECTIONS, variables

BASE_HEAD = """---
# Every variable with its default; docs/variables.md says what each may be. A profile beside this file overrides what it
# needs, and -e overrides both. Made by: python -m turbokube.profile base
"""

CHOICE = "turbokube_profile"  # says which profile is read beside base.yml, so base.yml cannot set it

PAGE_HEAD = """# Variables

What a user sets, in a profile (`playbooks/profiles/`), in the inventory or with `-e`. A name that is not here is
refused. Made by `python -m turbokube.profile variables`.
"""


def base() -> str:
    """playbooks/profiles/base.yml."""
    lines = [BASE_HEAD]
    for name, rule in variables().items():
        if name in SECTIONS:
            lines.append(f"\n# {SECTIONS[name]}\n")
        if name != CHOICE:
            lines.append(f"{name}: {_yaml(rule.default)}\n")
    return "".join(lines)


def variables_page() -> str:
    """docs/variables.md."""
    lines = [PAGE_HEAD]
    for name, rule in variables().items():
        if name in SECTIONS:
            lines.append(f"\n## {SECTIONS[name]}\n\n| variable | default | allowed | |\n|---|---|---|---|\n")
        lines.append(f"| `{name}` | `{_yaml(rule.default)}` | {rule.allowed()} | {rule.description} |\n")
    return "".join(lines)


def _yaml(value: Any) -> str:
    """A default as YAML; text is always quoted, so that a version or a size stays text."""
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)
