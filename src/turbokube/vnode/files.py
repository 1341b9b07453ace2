"""Open files: how many an engine process needs, and whether it may have them."""

from __future__ import annotations

import resource

from .spec import Spec, SpecError

# beside those of vnodes: the fleet's own connections for leases, sockets to steer and to ask it, epoll, logs; twice
# what was counted at `lease`
_OWN = 256
_PER_VNODE = {"lease": 0, "kubelet": 1, "node": 2}  # connections
_SERVING = 2048  # where vnodes serve: 512 callers' connections are kept, and bursts of handshakes come on top


def needed(spec: Spec) -> int:
    """How many one process of the fleet has open at most."""
    vnodes = spec.block or -(-spec.count // spec.processes)
    return _OWN + _SERVING * spec.serve + spec.connections + _PER_VNODE[spec.fidelity] * vnodes


def check(spec: Spec) -> None:
    """Raises SpecError when this machine does not let a process of the fleet have the files that it needs."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = needed(spec)
    if most == resource.RLIM_INFINITY or need <= most:
        return
    ways = ["raise the limit (ulimit -Hn, /etc/security/limits.conf, or LimitNOFILE= of a unit)"]
    per_vnode = _PER_VNODE[spec.fidelity]
    room = most - _OWN - _SERVING * spec.serve - spec.connections
    if room >= per_vnode > 0:
        ways.append(f"set processes to {-(-spec.count * per_vnode // room)}")
        ways.append(f"have at most {room // per_vnode * spec.processes} vnodes")
    raise SpecError(
        f"count is {spec.count} and fidelity is {spec.fidelity!r}, for which an engine process needs {need} open "
        f"files, but the limit on this machine (RLIMIT_NOFILE) is {most}; {', or '.join(ways)}"
    )


def allow(spec: Spec) -> None:
    """Let this process have the files that it needs, as far as the machine does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < (need := needed(spec)):
        resource.setrlimit(resource.RLIMIT_NOFILE, (need if hard == resource.RLIM_INFINITY else min(need, hard), hard))
