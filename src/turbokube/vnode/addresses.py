"""IPv4 addresses for nodes and pods: distinct, and the same again after a restart."""

from __future__ import annotations

# Carrier-grade NAT space (RFC 6598): for pods whose node has no podCIDR, or one that is full
FALLBACK = "100.64.0.0/10"
NODES = "172.16.0.0/12"  # RFC 1918: a million vnodes
SERVING = "127.16.0.0/12"  # the same of loopback, all of which is this machine's
_FIRST = 256  # a range's addresses before that of vnode 0


def fallback(shard: int, processes: int) -> str:
    """The part of FALLBACK that process `shard` of so many takes addresses from."""
    bits = (processes - 1).bit_length()
    base, _, prefix = FALLBACK.partition("/")
    size = 1 << 32 - int(prefix) - bits
    return f"{dotted(number(base) + shard * size)}/{int(prefix) + bits}"


def dotted(address: int) -> str:
    """10.1.2.3 for its number."""
    return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


def number(address: str) -> int:
    """The inverse of `dotted`; 0 for what is no IPv4 address."""
    parts = address.split(".")
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        return 0
    a, b, c, d = map(int, parts)
    return a << 24 | b << 16 | c << 8 | d


def node_address(cidr: str, index: int) -> str:
    """The InternalIP of vnode `index` of a fleet whose nodes are in `cidr`."""
    return dotted(number(cidr.partition("/")[0]) + _FIRST + index)


def node_index(cidr: str, address: str) -> int:
    """The inverse of `node_address`; negative for what is none."""
    return number(address) - number(cidr.partition("/")[0]) - _FIRST


def node_room(cidr: str) -> int:
    """How many nodes have an address in an IPv4 CIDR; negative for what is none, or has bits of a host."""
    base, _, bits = cidr.partition("/")
    first = number(base)
    if not bits.isdecimal() or int(bits) > 32 or not 0 < first < 1 << 32 or dotted(first) != base:
        return -1
    if first % (1 << 32 - int(bits)):
        return -1
    return (1 << 32 - int(bits)) - _FIRST - 1


class Range:
    """The addresses of one CIDR but the first two (network, gateway) and the last; lowest free one first.

    One bit per address in one number: a node with 32 pods takes 32 bytes for them, where a set takes 2 KB.
    """

    __slots__ = ("_first", "_size", "_used")

    def __init__(self, cidr: str) -> None:
        """Anything but an IPv4 CIDR makes an empty range."""
        base, _, bits = cidr.partition("/")
        self._first = number(base) + 2
        self._size = max(0, (1 << 32 - int(bits)) - 3) if bits.isdecimal() and self._first > 2 else 0
        self._used = 0

    def take(self) -> int:
        """A free address; 0 when there is none."""
        free = (~self._used & (self._used + 1)).bit_length() - 1
        if free >= self._size:
            return 0
        self._used |= 1 << free
        return self._first + free

    def adopt(self, address: int) -> None:
        """Mark an address that is in use already; those of other ranges are none of its business."""
        if 0 <= address - self._first < self._size:
            self._used |= 1 << address - self._first

    def release(self, address: int) -> None:
        if 0 <= address - self._first < self._size:
            self._used &= ~(1 << address - self._first)
