"""The provider's published description of its API, by which the stand-in's answers are checked where it is at hand.

It is the folder `specification` of github.com/digitalocean/openapi.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import jsonschema
import yaml

Object = dict[str, Any]
NOT_DESCRIBED = (400, 403, 409, 422)  # errors that stand there as `default`


class Description:
    """What requests and answers are to look like. `folder`: a checkout of the repository, or its `specification`."""

    def __init__(self, folder: Path) -> None:
        self._main = next(folder.rglob("DigitalOcean-public.v2.yaml"))
        self._paths: Object = _load(self._main)["paths"]
        self._schemas: dict[tuple[str, str, str], jsonschema.Draft202012Validator] = {}

    def wrong(self, method: str, path: str, body: Object, status: int, answer: Object | None) -> list[str]:
        """What of a request that was taken, and of its answer, is not as it is described."""
        template = self._template(method, path)
        operation, base = _followed(self._paths[template][method.lower()], self._main)
        key = str(status) if str(status) in operation["responses"] else "default"
        found = [] if key != "default" or status in NOT_DESCRIBED else [f"status {status} is not described"]
        said = [("taken", operation.get("requestBody", {}), body)] if status < 300 and body else []
        said += [(key, operation["responses"][key], answer)] if answer is not None else []
        for what, node, value in said:
            if (template, method, what) not in self._schemas:
                self._schemas[template, method, what] = jsonschema.Draft202012Validator(_content(node, base))
            errors = self._schemas[template, method, what].iter_errors(value)
            found += [f"{error.json_path}: {error.message[:200]}" for error in errors]
        return [f"{method} {path} {status}: {one}" for one in found]

    def _template(self, method: str, path: str) -> str:
        for template in [path] if path in self._paths else self._paths:
            if method.lower() in self._paths[template] and re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path):
                return template
        raise KeyError(f"{method} {path} is not described")


@functools.cache
def _load(path: Path) -> Any:
    return yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)


def _followed(node: Object, base: Path) -> tuple[Object, Path]:
    """A node, or what it refers to, and the file that it stands in."""
    while "$ref" in node:
        name, _hash, fragment = node["$ref"].partition("#")
        base = (base.parent / name).resolve() if name else base
        node = _load(base)
        for part in filter(None, fragment.split("/")):
            node = node[part.replace("~1", "/").replace("~0", "~")]
    return node, base


def _content(node: Object, base: Path) -> Object:
    """The JSON schema of a request or an answer; one that fits all where there is none."""
    node, base = _followed(node, base)
    media = node.get("content", {}).get("application/json", {})
    schema: Object = _whole(media.get("schema", {}), base)
    return schema


def _whole(node: Any, base: Path, depth: int = 0) -> Any:
    """A schema with all that it refers to, as JSON Schema has it in place of OpenAPI 3.0's `nullable`."""
    if isinstance(node, list):
        return [_whole(one, base, depth) for one in node]
    if not isinstance(node, dict) or depth > 40:
        return {} if isinstance(node, dict) else node
    if isinstance(node.get("$ref"), str):
        there, where = _followed(node, base)
        return _whole(there, where, depth + 1)
    found = {name: _whole(value, base, depth + 1) for name, value in node.items() if not name.startswith("example")}
    if found.get("nullable") and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found
