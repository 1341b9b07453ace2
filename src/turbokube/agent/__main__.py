"""python -m turbokube.agent --state <state> --bundle runs/<run>"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import uvloop

from turbokube.bundle.writer import BundleError

from .daemon import Agent


async def _serve(state: Path, bundle: Path) -> None:
    await Agent(state, bundle).serve()


def main() -> int:
    """Run the agent; 1 if another one holds the bundle."""
    parser = argparse.ArgumentParser(prog="turbokube.agent", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="state folder of the run")
    parser.add_argument("--bundle", type=Path, required=True, help="the run's bundle")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        uvloop.run(_serve(options.state, options.bundle))
    except BundleError as error:
        logging.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
