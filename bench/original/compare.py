"""Times of whole namespaces beside those that the original measured: namespaces.csv of runs and turboctl's CSVs.

    python bench/original/compare.py turbokube.2025-12-10T16-35-16Z.csv runs/1k/namespaces.csv [more.csv …]

The first file is what the others are held against. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HEAD = ["sequence", "time (ms)"]  # of turboctl; namespaces.csv has more columns behind these
_NUMBER = re.compile(r"-([0-9a-f]+)$")


class FileError(Exception):
    """A file that is no list of namespaces. The message is for the user."""


@dataclass(frozen=True)
class Block:
    """Namespaces whose numbers lie in a row. `seconds`: of each that is in the file, ascending."""

    first: int
    seconds: Sequence[float]

    def quantile(self, share: float) -> float:
        return self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))]

    def rate(self, at_once: int, pods: int) -> float:
        """Pods per second by Little's law: so many namespaces at once, of so many pods each."""
        return at_once * pods / statistics.fmean(self.seconds)


def read(path: Path) -> dict[int, float]:
    """Number of a namespace (hexadecimal in its name) → seconds. Raises FileError, OSError."""
    with path.open(newline="") as file:
        rows = csv.reader(file)
        if next(rows, [])[:2] != HEAD:
            raise FileError(f"{path} does not begin with {','.join(HEAD)}")
        found = {}
        for line, row in enumerate(rows, 2):
            number = _NUMBER.search(row[0]) if row else None
            if number is None or len(row) < 2 or not row[1].isdecimal():
                raise FileError(f"{path}: line {line} is no name and milliseconds: {','.join(row)}")
            found[int(number[1], 16)] = int(row[1]) / 1e3
    if not found:
        raise FileError(f"{path} has no namespaces")
    return found


def blocks(times: Mapping[int, float], size: int) -> dict[int, Block]:
    """The number that each block begins with → the block; those without a namespace are left out."""
    found: dict[int, list[float]] = {}
    for number, seconds in times.items():
        found.setdefault(number // size * size, []).append(seconds)
    return {first: Block(first, sorted(each)) for first, each in sorted(found.items())}


def table(files: Mapping[str, Mapping[int, float]], size: int, at_once: int, pods: int) -> Iterator[str]:
    """Lines of Markdown: a row for each block of each file, with its mean time ÷ that of the first file's."""
    yield "| namespaces | | n | mean, s | p50 | p90 | max | pods/s | time ÷ the first's |"
    yield "|---|---|---|---|---|---|---|---|---|"
    each = {name: blocks(times, size) for name, times in files.items()}
    against = next(iter(each.values()))
    for first in sorted({first for found in each.values() for first in found}):
        for name, found in each.items():
            if (block := found.get(first)) is None:
                continue
            mean = statistics.fmean(block.seconds)
            base = against.get(first)
            ratio = f"{mean / statistics.fmean(base.seconds):.2f}" if base else "–"
            numbers = (mean, block.quantile(0.5), block.quantile(0.9), block.seconds[-1])
            words = " | ".join(f"{number:.2f}" for number in numbers)
            rate = block.rate(at_once, pods)
            yield f"| {first}–{first + size - 1} | {name} | {len(block.seconds)} | {words} | {rate:.0f} | {ratio} |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="CSV")
    parser.add_argument("--block", type=int, default=128, help="namespaces of a row (128: 1,024 nodes)")
    parser.add_argument("--at-once", type=int, default=4, help="namespaces in work at once (4)")
    parser.add_argument("--pods", type=int, default=256, help="pods of a namespace (256)")
    options = parser.parse_args()
    try:
        files = {str(path): read(path) for path in options.files}
    except (FileError, OSError) as error:
        sys.exit(str(error))
    print("\n".join(table(files, options.block, options.at_once, options.pods)))


if __name__ == "__main__":
    main()
