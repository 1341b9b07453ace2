"""A report's files from its numbers."""

from __future__ import annotations

import base64
import gzip
import importlib.metadata
import importlib.resources
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jinja2
import msgspec
from markupsafe import Markup

from turbokube import disk
from turbokube.bundle.reader import Reader

from . import loads
from .content import build

NAMES = ("report.html", "report.json", "junit.xml")
NAMESPACES = "namespaces.csv"  # where whole namespaces were created


@dataclass(frozen=True, slots=True)
class Written:
    """What was made of a bundle. `changed`: names of the files whose content is new."""

    paths: dict[str, Path]
    changed: tuple[str, ...]
    verdict: str
    reasons: tuple[str, ...]
    headline: tuple[str, ...]
    line: str = ""  # the verdict in one line


def write(folder: str | Path, *, dry: bool = False) -> Written:
    """Write the report of the bundle in `folder` beside it; with `dry`, only tell what would change.

    Raises BundleError if it is no bundle, OSError if it cannot be written.
    """
    folder = Path(folder)
    with Reader(folder) as reader:
        content = build(reader)
        times = loads.namespaces(reader)
    texts = dict(zip(NAMES, (html(content), as_json(content), junit(content)), strict=True))
    if times:
        texts[NAMESPACES] = loads.namespaces_csv(times)
    changed = tuple(name for name, text in texts.items() if not _same(folder / name, text))
    for name in changed:
        if not dry:
            disk.replace(folder / name, texts[name], 0o666)
    headline = tuple(f"{tile['title']}: {tile['value']} ({tile['note']})" for tile in content["headline"])
    paths = {name: folder / name for name in texts}
    reasons = tuple(content["reasons"])
    return Written(
        paths, changed, content["verdict"], reasons, headline, _line(content["run"], content["verdict"], reasons)
    )


def _line(run: str, verdict: str, reasons: tuple[str, ...]) -> str:
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return f"{run}: {verdict}: {' '.join(reasons[0].split())}{more}" if reasons else f"{run}: {verdict}"


def _same(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def as_json(content: dict[str, Any]) -> bytes:
    """report.json: the numbers indented, each line of a plot on a line of its own."""
    plots = b",\n".join(b"    " + msgspec.json.encode(plot) for plot in content["plots"])
    head = msgspec.json.format(msgspec.json.encode({**content, "plots": []}), indent=2)
    return head.replace(b'"plots": []', b'"plots": [\n' + plots + b"\n  ]") + b"\n"


def junit(content: dict[str, Any]) -> bytes:
    """junit.xml: one testcase per limit; what is no gate, or could not be judged, is skipped with its reason."""
    limits = content["limits"]
    suite = ElementTree.Element(
        "testsuite",
        name=f"turbokube.{content['run']}",
        tests=str(len(limits)),
        failures=str(sum(limit["outcome"] == "fail" for limit in limits)),
        skipped=str(sum(limit["outcome"] not in ("pass", "fail") for limit in limits)),
        errors="0",
        time=f"{content['end'] - content['begin']:.3f}",
    )
    properties = ElementTree.SubElement(suite, "properties")
    ElementTree.SubElement(properties, "property", name="verdict", value=content["verdict"])
    for limit in limits:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"turbokube.{content['run']}", name=limit["name"], time="0"
        )
        words = f"{limit['title']}: {limit['reason'] or limit['value']}"
        if limit["outcome"] == "fail":
            ElementTree.SubElement(case, "failure", message=words).text = f"{limit['value']}, limit {limit['limit']}"
        elif limit["outcome"] != "pass":
            state = limit["outcome"] or limit["role"]
            ElementTree.SubElement(case, "skipped", message=f"{state}: {words}")
    ElementTree.indent(suite)
    text: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def html(content: dict[str, Any]) -> bytes:
    """report.html: one file that loads nothing, plot library and data within."""
    return page("page.html.j2", content)


def page(template: str, content: dict[str, Any]) -> bytes:
    """A page from one of the templates here. `content` has `plots`, their `bands`, and their `begin`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("turbokube.report", ""), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    files = importlib.resources.files(__package__)
    data = msgspec.json.encode({key: content[key] for key in ("plots", "bands", "begin")}).decode()
    made = environment.get_template(template).render(
        **content,
        by_name={plot["name"]: plot for plot in content["plots"]},
        style=Markup(files.joinpath("page.css").read_text()),
        script=Markup(files.joinpath("page.js").read_text()),
        data=Markup(data.replace("<", "\\u003c").replace("\u2028", "\\u2028")),
        library=plot_library(),
    )
    return made.encode()


def plot_library() -> str:
    """plotly.js as its PyPI package ships it, gzipped, in base64; the page inflates it."""
    script = importlib.metadata.distribution("plotly").locate_file("plotly/package_data/plotly.min.js")
    return base64.b64encode(gzip.compress(Path(str(script)).read_bytes(), 9, mtime=0)).decode()
