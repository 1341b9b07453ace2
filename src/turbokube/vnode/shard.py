"""What one process of a fleet can leave aside."""

from __future__ import annotations

from collections.abc import Callable

from .spec import Spec

_NODE_NAME = b'"nodeName":"'


def pods(spec: Spec) -> Callable[[bytes], bool] | None:
    """Whether the line of a pod's event may concern this process; None where all do.

    No selector of the API tells pods by a set of nodes, so each process is sent all of them; a search costs 2 µs where
    decoding costs 25. A line in which the text is found elsewhere too, as in a label of that name, is let through.
    """
    if spec.alone:
        return None

    def mine(line: bytes) -> bool:
        if line.count(_NODE_NAME) != 1:
            return True
        start = line.rfind(_NODE_NAME) + len(_NODE_NAME)
        index = spec.index(line[start : line.index(b'"', start)].decode())
        return index is None or spec.owns(index)

    return mine
