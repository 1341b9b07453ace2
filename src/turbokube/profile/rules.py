"""What one variable may be, and the way from what a user wrote to a value of its type."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import math
import re
from typing import Any

from turbokube.profile.distribution import ALLOWED as DURATION
from turbokube.profile.distribution import parse

# Kubernetes quantities, the suffixes that make sense for a pod or a node (apimachinery/pkg/api/resource).
SUFFIXES = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
SUFFIXES |= {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|[kMGT]|[KMGT]i)?")

TRUE, FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}  # as Ansible's bool filter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """A variable: `kind` is the name of its Python type; `like` says its pattern in words."""

    kind: str
    default: Any
    description: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    like: str = ""
    quantity: bool = False
    subnet: bool = False
    duration: bool = False
    empty: bool = False
    nested: bool = False  # a list or dictionary of anything; `like` says of what

    def allowed(self) -> str:
        """What the variable may be, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices) if len(self.choices) > 1 else self.choices[0]
        words = {
            "bool": "true or false",
            "dict": "a dictionary of names and plain values",
            "list": "a list of dictionaries of names and plain values",
            "str": "text",
        }
        text = words.get(self.kind, "a whole number" if self.kind == "int" else "a number")
        if self.quantity:
            text = "a Kubernetes quantity such as 32Mi, 2 or 500m"
        elif self.duration:
            text = DURATION
        elif self.subnet:
            text = "an IPv4 network such as 10.128.0.0/9"
        elif self.pattern or self.nested:
            text = self.like
        if self.least is not None and self.most is not None:
            text += f" from {self.least:.12g} to {self.most:.12g}"
        return text + (" or empty" if self.empty else "")


def variable(default: Any, description: str, **limits: Any) -> Any:
    """A field of Profile with its rule."""
    metadata = {"default": default, "description": description, **limits}
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def rule(field: dataclasses.Field[Any]) -> Rule:
    """The rule of a field that `variable` made."""
    return Rule(kind=str(field.type).partition("[")[0], **field.metadata)


def quantity(text: str) -> float:
    """A Kubernetes quantity in its base unit (bytes, cores). Raises ValueError."""
    match = QUANTITY.fullmatch(text)
    if not match:
        raise ValueError(f"{text} is not a quantity")
    return float(match[1]) * SUFFIXES[match[2] or ""]


def convert(name: str, rule: Rule, given: Any) -> Any:
    """What a user gave (a value of YAML, or text from -e) → a value of the variable's type.

    Raises ValueError with a sentence that names the variable, the value and what is allowed.
    """
    try:
        value = NESTED[rule.kind](given) if rule.nested else CONVERTERS[rule.kind](given)
        _check(rule, value)
    except (ValueError, TypeError, OverflowError):
        shown = given if isinstance(given, str | int | float) and given != "" else json.dumps(given, default=str)
        raise ValueError(f"{name} is {shown}, but it must be {rule.allowed()}") from None
    return value


def _check(rule: Rule, value: Any) -> None:
    if rule.empty and value == "":
        return
    refused = (
        (rule.least is not None and value < rule.least)
        or (rule.most is not None and value > rule.most)
        or (rule.choices and value not in rule.choices)
        or (rule.pattern and not re.fullmatch(rule.pattern, value))
    )
    if refused:
        raise ValueError
    if rule.quantity and quantity(value) <= 0:
        raise ValueError
    if rule.duration:
        parse(value)
    if rule.subnet and ipaddress.ip_network(value).version != 4:
        raise ValueError


def _int(given: Any) -> int:
    number = _float(given)
    if number != int(number):
        raise ValueError
    return int(given) if isinstance(given, int) else int(number)


def _float(given: Any) -> float:
    if isinstance(given, bool) or given is None:
        raise ValueError
    number = float(given)
    if not math.isfinite(number):
        raise ValueError
    return number


def _bool(given: Any) -> bool:
    text = str(given).lower()
    if text not in TRUE | FALSE:
        raise ValueError
    return text in TRUE


def _str(given: Any) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise ValueError
    return str(given)


def _dict(given: Any) -> dict[str, Any]:
    value = json.loads(given) if isinstance(given, str) else given
    if not isinstance(value, dict) or not all(isinstance(one, str | int | float | bool) for one in value.values()):
        raise ValueError
    return {str(key): one for key, one in value.items()}


def _list(given: Any) -> list[dict[str, Any]]:
    value = json.loads(given) if isinstance(given, str) else given
    if not isinstance(value, list):
        raise ValueError
    if not all(isinstance(one, dict) for one in value):
        raise ValueError
    return [_dict(one) for one in value]


def _tree(given: Any, kind: type[Any]) -> Any:
    """A list or dictionary as JSON has it, whatever a templating engine made of it."""
    value = json.loads(given if isinstance(given, str) else json.dumps(given))
    if not isinstance(value, kind):
        raise ValueError
    return value


NESTED = {"list": lambda given: _tree(given, list), "dict": lambda given: _tree(given, dict)}
CONVERTERS = {"int": _int, "float": _float, "bool": _bool, "str": _str, "dict": _dict, "list": _list}
