"""Every kind of phase, and the work that it is."""

from __future__ import annotations

from .create import CreateWork
from .work import Work

KINDS: dict[str, type[Work]] = {
    "create": CreateWork,
}
