"""HPACK (RFC 7541) without its dynamic table, which a client refuses by announcing a size of 0.

What is left has no state: a header block means the same on every connection, so that ours are made once and the
server's are read only as far as something is wanted of them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

# Appendix A, in its order: fields 1 to 61 as name or name=value
_APPENDIX_A = """
:authority :method=GET :method=POST :path=/ :path=/index.html :scheme=http :scheme=https :status=200 :status=204
:status=206 :status=304 :status=400 :status=404 :status=500 accept-charset accept-encoding=gzip,deflate
accept-language accept-ranges accept access-control-allow-origin age allow authorization cache-control
content-disposition content-encoding content-language content-length content-location content-range content-type
cookie date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since
last-modified link location max-forwards proxy-authenticate proxy-authorization range referer refresh retry-after
server set-cookie strict-transport-security transfer-encoding user-agent vary via www-authenticate
"""
_STATIC = [
    (name.encode(), value.replace(",", ", ").encode())
    for name, _, value in (entry.partition("=") for entry in _APPENDIX_A.split())
]
_INDEX = {name: number for number, (name, _) in reversed(list(enumerate(_STATIC, 1)))}
_EXACT = {field: number for number, field in enumerate(_STATIC, 1)}

# Appendix B: the length in bits of each byte's code; the codes themselves follow, since those of one length are
# numbered in the order of their bytes
_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b0806060605050506"
    "06060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f05060506050606"
    "060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817171717151617"
    "1617171816151416161717151716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a1819"
    "13151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"
)


class HeaderError(ValueError):
    """A header block that breaks the rules, or uses the table that it was told not to."""


def field(name: bytes, value: bytes, *, secret: bool = False) -> bytes:
    """One field, encoded; `secret` tells those on the way never to keep it in a table."""
    if not secret and (number := _EXACT.get((name, value))):
        return _integer(number, 7, 0x80)
    number = _INDEX.get(name, 0)
    return _integer(number, 4, 0x10 if secret else 0) + (b"" if number else string(name)) + string(value)


def string(text: bytes) -> bytes:
    """A name or a value, encoded without Huffman's code: on loopback bytes cost less than bits."""
    return _integer(len(text), 7, 0) + text


def fields(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The fields of a block, decoded one by one as they are asked for. Raises HeaderError."""
    at = 0
    try:
        while at < len(block):
            first = block[at]
            if first & 0x80:
                number, at = _read_integer(block, at, 7)
                yield _STATIC[_known(number)]
            elif first & 0x60 == 0x20:  # a table's size, which can but be 0
                _, at = _read_integer(block, at, 5)
            else:
                number, at = _read_integer(block, at, 6 if first & 0x40 else 4)
                if number:
                    name = _STATIC[_known(number)][0]
                else:
                    name, at = _read_string(block, at)
                value, at = _read_string(block, at)
                yield name, value
    except IndexError:
        raise HeaderError("a header block that ends in the middle of a field") from None


def _known(number: int) -> int:
    if not 0 < number <= len(_STATIC):
        raise HeaderError(f"field {number} of a header table that is empty")
    return number - 1


def _integer(value: int, bits: int, flags: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes([flags | value])
    rest, value = bytearray([flags | most]), value - most
    while value >= 0x80:
        rest.append(value & 0x7F | 0x80)
        value >>= 7
    rest.append(value)
    return bytes(rest)


def _read_integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    for shift in (0, 7, 14, 21):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise HeaderError("a number too large in a header block")


def _read_string(block: bytes, at: int) -> tuple[bytes, int]:
    coded = block[at] & 0x80
    length, at = _read_integer(block, at, 7)
    end = at + length
    if end > len(block):
        raise IndexError
    text = block[at:end]
    return (_huffman(text) if coded else text), end


@functools.cache
def _codes() -> dict[int, int]:
    """Each code with a 1 before its first bit, so that its length is in it → the byte it means."""
    code, last, codes = 0, 0, {}
    for length, byte in sorted((length, byte) for byte, length in enumerate(_LENGTHS)):
        code <<= length - last
        codes[1 << length | code] = byte
        code, last = code + 1, length
    return codes


@functools.lru_cache(maxsize=512)  # names, and what is said often; the rest is but a date and an id
def _huffman(coded: bytes) -> bytes:
    codes, text, key = _codes(), bytearray(), 1
    for byte in coded:
        for shift in (7, 6, 5, 4, 3, 2, 1, 0):
            key = key << 1 | byte >> shift & 1
            if (known := codes.get(key)) is not None:
                text.append(known)
                key = 1
    if key & key + 1 or key > 0xFF:  # the rest must be ones, and fewer than a byte's
        raise HeaderError("a string that is no Huffman code in a header block")
    return bytes(text)
