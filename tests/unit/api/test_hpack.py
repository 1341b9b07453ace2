"""HPACK without a table, against the hpack package."""

from __future__ import annotations

import random

import hpack as other
import pytest

from turbokube.api import hpack

NAMES = [b":status", b"date", b"audit-id", b"retry-after", b"content-type", b"accept-encoding", b"x-\xc3\xa9", b""]


def some_fields(source: random.Random) -> list[tuple[bytes, bytes]]:
    values = [
        b"200",
        b"404",
        b"gzip, deflate",
        b"",
        source.randbytes(source.randrange(300)),
        b"%d" % source.getrandbits(60),
    ]
    return [(source.choice(NAMES), source.choice(values)) for _ in range(8)]


@pytest.mark.parametrize("huffman", [True, False])
def test_what_another_wrote_is_read(huffman):
    source = random.Random(4)
    for _ in range(300):
        encoder, fields = other.Encoder(), some_fields(source)
        encoder.header_table_size = 0
        assert list(hpack.fields(encoder.encode(fields, huffman=huffman))) == fields


def test_another_reads_what_is_written():
    source = random.Random(5)
    for _ in range(300):
        fields = some_fields(source)
        block = b"".join(hpack.field(name, value, secret=value == b"200") for name, value in fields)
        assert [tuple(field) for field in other.Decoder().decode(block, raw=True)] == fields


@pytest.mark.parametrize(
    "block",
    [
        b"\xbe",  # the first entry of a table that is not there
        b"\x80",
        b"\x08",
        b"\x08\x03ab",
        b"\x08\x81\x00",  # Huffman's code with zeros for padding
        b"\x08\x82\xff\xff",  # and with a byte of padding too much
        b"\xff\xff\xff\xff\xff\xff",
        b"\x40\x7f\xff\xff\xff\x7f",
    ],
)
def test_what_breaks_the_rules_is_refused(block):
    with pytest.raises(hpack.HeaderError):
        list(hpack.fields(block))
