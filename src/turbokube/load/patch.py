"""Phase `patch`: a merge patch of objects, so often or for so long."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import jinja2.sandbox
import msgspec

from turbokube.api.transport import MERGE_PATCH

from .acting import Acting, Target, targets
from .phase import LoadError
from .send import Request
from .work import Context

_Filled = Callable[[Mapping[str, Any]], Any]
_EXPRESSION = re.compile(r"\{\{((?:(?!\}\}|\{\{).)*)\}\}", re.DOTALL)


class PatchWork(Acting):
    """One phase of kind patch at work."""

    noun, done_to = "patches", "made"
    awaiting = "not patched"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._fill = compiled(self.phase.patch)
        try:
            self._body(0, "namespace", "name")
        except jinja2.TemplateError as error:
            raise LoadError(f"patch of phase {self.phase.name} does not render: {error}") from None

    async def work(self) -> None:
        """Patch each target so often, round by round, or until the time is over."""
        self.targets = await targets(self.context, self.phase)
        await self.items(len(self.targets) * self.phase.repeat, self.phase.duration)

    async def item(self, number: int, intended: float) -> None:
        """One patch; accepted is done."""
        target = self.targets[number % len(self.targets)]
        action, _ = await self.act(number, "patch", target.entry.key, intended, None, self._request(number, target))
        if action.accepted:
            self.end(action, action.accepted)

    def _request(self, number: int, target: Target) -> Request:
        made = target.made
        body = self._body(number, made.namespace, made.name)
        return Request("patch", made.resource, "PATCH", f"{made.path}/{made.name}", body, MERGE_PATCH)

    def _body(self, number: int, namespace: str, name: str) -> bytes:
        round_, index = divmod(number, max(1, len(self.targets)))
        variables = {
            "run": self.phase.run,
            "phase": self.phase.name,
            "namespace": namespace,
            "name": name,
            "number": number,
            "index": index,
            "round": round_,
        }
        return msgspec.json.encode(self._fill(variables))


def compiled(value: Any) -> _Filled:
    """A patch whose texts may be jinja → what fills it in; a text that is one expression alone keeps its type.

    Raises LoadError where it is no jinja.
    """
    environment = jinja2.sandbox.SandboxedEnvironment(undefined=jinja2.StrictUndefined)
    try:
        return _compiled(value, environment)
    except jinja2.TemplateError as error:
        raise LoadError(f"patch cannot be read: {error}") from None


def _compiled(value: Any, environment: jinja2.Environment) -> _Filled:
    if isinstance(value, Mapping):
        fields = {key: _compiled(one, environment) for key, one in value.items()}
        return lambda variables: {key: fill(variables) for key, fill in fields.items()}
    if isinstance(value, list | tuple):
        items = [_compiled(one, environment) for one in value]
        return lambda variables: [fill(variables) for fill in items]
    if not isinstance(value, str) or not ("{{" in value or "{%" in value):
        return lambda variables: value
    if alone := _EXPRESSION.fullmatch(value.strip()):
        expression = environment.compile_expression(alone[1], undefined_to_none=False)
        return lambda variables: _defined(expression(**variables))
    template = environment.from_string(value)
    return lambda variables: template.render(variables)


def _defined(value: Any) -> Any:
    if isinstance(value, jinja2.Undefined):
        raise jinja2.UndefinedError(str(value._undefined_message))
    return value
