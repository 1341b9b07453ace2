"""Means over repeated runs, and how sure a difference between two of them is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
_STEPS = 100  # of Simpson's rule; the integrand is smooth, the error far below what is printed


@dataclass(frozen=True, slots=True)
class Estimate:
    """`deviation` is the sample's standard deviation, None for a single value. A mean may be infinite."""

    n: int
    mean: float
    deviation: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two means, with its confidence interval; `low` and `high` are None where there are no repeats to tell."""

    value: float | None
    low: float | None = None
    high: float | None = None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and deviation of at least one value."""
    finite = len(values) > 1 and all(map(math.isfinite, values))
    return Estimate(len(values), statistics.fmean(values), statistics.stdev(values) if finite else None)


def difference(base: Sequence[float], other: Sequence[float]) -> Difference:
    """`other` less `base`, with Welch's interval at 95 %: the variances need not be equal (B. L. Welch, 1947)."""
    a, b = estimate(base), estimate(other)
    value = b.mean - a.mean
    if not math.isfinite(value):
        return Difference(None)
    if a.deviation is None or b.deviation is None:
        return Difference(value)
    parts = [each.deviation**2 / each.n for each in (a, b) if each.deviation is not None]
    error = math.sqrt(sum(parts))
    if not error:
        return Difference(value, value, value)
    freedom = sum(parts) ** 2 / sum(part**2 / (each.n - 1) for part, each in zip(parts, (a, b), strict=True))
    reach = student(freedom) * error
    return Difference(value, value - reach, value + reach)


def student(freedom: float, confidence: float = CONFIDENCE) -> float:
    """Student's t that is exceeded on neither side with this confidence, for any number of degrees of freedom ≥ 1.

    With t = √ν·tan θ the density becomes cos^(ν-1) θ on a finite span (Abramowitz and Stegun, 26.7.3).
    """
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) * 2 / math.sqrt(math.pi)

    def inside(angle: float) -> float:
        step = angle / _STEPS
        heights: list[float] = [math.cos(step * n) ** (freedom - 1) for n in range(_STEPS + 1)]
        return scale * step / 3 * (heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2]))

    low, high = 0.0, math.pi / 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan(low)
