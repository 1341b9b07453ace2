from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from turbokube.api.target import Component
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import Writer
from turbokube.measure import scrape, sli
from turbokube.measure.scrape import Metric, Sample, Store, chosen, identity, parse, read

ROOT = Path(__file__).resolve().parents[3]
TEXT = b"""# HELP unwanted_total Not for us
# TYPE unwanted_total counter
unwanted_total{a="b"} 3
# HELP wanted_seconds Yes
# TYPE wanted_seconds histogram
wanted_seconds_bucket{verb="GET",le="0.5"} 1
wanted_seconds_bucket{verb="GET",le="1.0"} 2
wanted_seconds_bucket{verb="GET",le="+Inf"} 3
wanted_seconds_sum{verb="GET"} 1.5e+00
wanted_seconds_count{verb="GET"} 3
# TYPE wanted_seconds_longer counter
wanted_seconds_longer 9
# TYPE plain gauge
plain 4.5 1700000000000
# TYPE nothing summary
nothing{quantile="0.5"} NaN
"""


def test_parse_takes_one_family_whole_and_nothing_else() -> None:
    found = list(parse(TEXT, b"wanted_seconds"))
    assert [sample.name for sample in found] == [
        b'wanted_seconds_bucket{verb="GET",le="0.5"}',
        b'wanted_seconds_bucket{verb="GET",le="1.0"}',
        b'wanted_seconds_bucket{verb="GET",le="+Inf"}',
        b'wanted_seconds_sum{verb="GET"}',
        b'wanted_seconds_count{verb="GET"}',
    ]
    assert {sample.type for sample in found} == {b"histogram"}
    assert [sample.value for sample in found] == [b"1", b"2", b"3", b"1.5e+00", b"3"]


def test_parse_knows_values_without_labels_and_with_timestamps() -> None:
    assert list(parse(TEXT, b"plain")) == [Sample(b"gauge", b"plain", b"4.5")]
    assert list(parse(TEXT, b"nothing")) == []
    assert list(parse(TEXT, b"absent")) == []
    assert list(parse(b"# TYPE a counter\na 1", b"a")) == [Sample(b"counter", b"a", b"1")]


def test_braces_and_spaces_inside_labels_do_no_harm() -> None:
    text = b'# TYPE a counter\na{b="x } y {",c="q\\"w"} 7\n'
    (sample,) = parse(text, b"a")
    assert sample.value == b"7"
    assert identity(sample.name) == ("a", '{"b":"x } y {","c":"q\\"w"}')


@pytest.mark.parametrize("le", ["1", "1.0", "1e0"])
def test_bounds_are_one_whoever_wrote_them(le: str) -> None:
    assert identity(f'm_bucket{{z="1",le="{le}"}}'.encode()) == ("m_bucket", '{"le":"1","z":"1"}')
    assert identity(b'm_bucket{le="+Inf"}') == ("m_bucket", '{"le":"+Inf"}')
    assert identity(b'm_bucket{le="0.005"}') == ("m_bucket", '{"le":"0.005"}')


def test_families_are_summed_over_labels_that_are_not_kept() -> None:
    text = b'# TYPE t counter\nt{op="get",type="a"} 1\nt{op="get",type="b"} 2\nt{op="put",type="a"} 4\n'
    found = read(text, [Metric("t", "", by=["op"])])
    assert {(sample.name, float(sample.value)) for sample in found} == {(b't{op="get"}', 3.0), (b't{op="put"}', 4.0)}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"# TYPE new counter\nnew 1\n# TYPE old counter\nold 2\n", [b"new"]),
        (b"# TYPE old counter\nold 2\n# TYPE older counter\nolder 3\n", [b"old"]),
        (b"", []),
    ],
)
def test_the_newest_name_that_a_component_has_is_taken(text: bytes, names: list[bytes]) -> None:
    assert [sample.name for sample in read(text, [Metric("new", "", otherwise=["old", "older"])])] == names


def test_the_clock_of_api_calls_is_taken_from_servers_of_any_version() -> None:
    (metric,) = (metric for metric in chosen() if metric.name == sli.API_METRICS[0])
    assert (metric.name, *metric.otherwise) == sli.API_METRICS


COMPONENT = Component(name="api-0", kind="kube-apiserver", url="https://127.0.0.1:1")


def kept(folder: Path) -> list[tuple[str, str, float, float]]:
    sql = "SELECT metric, labels, time, value FROM samples JOIN series ON id = series ORDER BY metric, labels, time"
    with Reader(folder) as reader:
        return [tuple(row) for row in reader.query(sql)]


def counter(name: str, value: str) -> Sample:
    return Sample(b"counter", name.encode(), value.encode())


def test_only_changes_are_kept_and_everything_at_the_end(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    store = Store(writer)
    for now, value in ((1.0, "0"), (2.0, "0"), (3.0, "5"), (4.0, "5"), (5.0, "6")):
        store.take(COMPONENT, now, [counter("a", value)])
    store.take(COMPONENT, 6.0, [counter("a", "6"), counter("never", "0")], everything=True)
    writer.close()
    # it was seen at zero at 2.0, before it rose
    assert [row[2:] for row in kept(tmp_path)] == [(2.0, 0.0), (3.0, 5.0), (5.0, 6.0), (6.0, 6.0)]


def test_a_counter_that_we_came_in_on_has_no_zero(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    Store(writer).take(COMPONENT, 1.0, [counter("a", "70"), Sample(b"gauge", b"g", b"0")])
    writer.close()
    assert [(row[0], *row[2:]) for row in kept(tmp_path)] == [("a", 1.0, 70.0), ("g", 1.0, 0.0)]


def test_a_later_agent_goes_on_with_the_same_series(tmp_path: Path) -> None:
    for now, value in ((1.0, "1"), (9.0, "2")):
        writer = Writer(tmp_path)
        Store(writer).take(COMPONENT, now, [counter('a{x="1"}', value)])
        writer.close()
    assert kept(tmp_path) == [("a", '{"x":"1"}', 1.0, 1.0), ("a", '{"x":"1"}', 9.0, 2.0)]
    with Reader(tmp_path) as reader:
        assert reader.query("SELECT count(*) FROM series")[0][0] == 1


def test_the_list_and_its_page_are_equal() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `([^`]+)`(?: \(([^)]*)\))? \| ([^|]*) \| ([^|]*) \|$", page, re.MULTILINE)
    assert [(name, by, of, about) for name, by, of, about in rows] == [
        (metric.name, ", ".join(metric.by), ", ".join(metric.kinds) or "all", metric.about) for metric in chosen()
    ]
    names = [metric.name for metric in chosen()]
    assert len(names) == len(set(names))
    assert json.loads((Path(scrape.__file__).parent / "metrics.json").read_text())
