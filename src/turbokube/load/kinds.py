"""Every kind of phase, and the work that it is."""

from __future__ import annotations

from .churn import ChurnWork
from .create import CreateWork
from .delete import DeleteWork
from .patch import PatchWork
from .pause import PauseWork
from .read import ReadWork
from .replay import ReplayWork
from .roll import RollWork
from .scale import ScaleWork
from .scrape import ScrapeWork
from .wait import WaitWork
from .work import Work

KINDS: dict[str, type[Work]] = {
    "create": CreateWork,
    "scale": ScaleWork,
    "roll": RollWork,
    "patch": PatchWork,
    "churn": ChurnWork,
    "delete": DeleteWork,
    "read": ReadWork,
    "pause": PauseWork,
    "wait": WaitWork,
    "scrape": ScrapeWork,
    "replay": ReplayWork,
}
