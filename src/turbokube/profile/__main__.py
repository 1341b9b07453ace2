"""`python -m turbokube.profile variables|base` writes what is generated from the schema to standard output."""

from __future__ import annotations

import sys

from turbokube.profile.reference import base, variables_page

PAGES = {"variables": variables_page, "base": base}

if __name__ == "__main__":
    page = PAGES.get(sys.argv[1]) if len(sys.argv) == 2 else None
    if page is None:
        sys.exit("usage: python -m turbokube.profile variables|base")
    sys.stdout.write(page())
