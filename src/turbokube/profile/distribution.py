"""Durations that are constant, or drawn from a distribution."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass

ALLOWED = (
    'seconds from 0 to 86400, or "uniform(least,most)", "exponential(mean)" or "lognormal(mu,sigma)", sigma from 0 to 5'
)
_LONGEST = 86400.0
_CALL = re.compile(r"(?:(uniform|exponential|lognormal)\(([^()]*)\))|([^()]+)")
_ARGUMENTS = {"constant": 1, "uniform": 2, "exponential": 1, "lognormal": 2}


@dataclass(frozen=True, slots=True)
class Distribution:
    """Durations in seconds. `lognormal` has the mean and deviation of the logarithm, as everywhere."""

    kind: str
    a: float
    b: float = 0.0

    @property
    def mean(self) -> float:
        """Mean seconds, as if there were no longest."""
        if self.kind == "uniform":
            return (self.a + self.b) / 2
        return math.exp(self.a + self.b**2 / 2) if self.kind == "lognormal" else self.a

    def draw(self, chance: random.Random) -> float:
        """One duration, of a day at most."""
        if self.kind == "constant":
            return self.a
        if self.kind == "uniform":
            return chance.uniform(self.a, self.b)
        if self.kind == "exponential":
            return min(chance.expovariate(1 / self.a), _LONGEST) if self.a else 0.0
        return min(chance.lognormvariate(self.a, self.b), _LONGEST)


def parse(text: str) -> Distribution:
    """What an option or an annotation says. Raises ValueError for anything else than ALLOWED."""
    match = _CALL.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no duration")
    kind = match[1] or "constant"
    numbers = [float(part) for part in (match[3] if match[1] is None else match[2]).split(",")]
    if len(numbers) != _ARGUMENTS[kind] or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{text!r} is no duration")
    a, b = (*numbers, 0.0)[:2]
    good = {
        "constant": 0 <= a <= _LONGEST,
        "uniform": 0 <= a <= b <= _LONGEST,
        "exponential": 0 <= a <= _LONGEST,
        "lognormal": abs(a) <= math.log(_LONGEST) and 0 <= b <= 5,
    }
    if not good[kind]:
        raise ValueError(f"{text!r} is no duration")
    return Distribution(kind, a, b)
