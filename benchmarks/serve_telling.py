"""Serves as `python -m vixws_anyio` does, from the working folder, and first tells which files that is.

`python -P serve_telling.py FILE serve …`: FILE gets the process and the file of each package, as JSON. `-P` keeps
this script's own folder off the path; an installed vixws comes after the working folder.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from pathlib import Path

PACKAGES = ("vixws_core", "vixws_anyio", "vixws_store")
"""What every server imports, whatever it serves."""


def main() -> None:
    """Tell, then become the server."""
    sys.path.insert(0, os.getcwd())
    files = {each: importlib.import_module(each).__file__ for each in PACKAGES}
    Path(sys.argv.pop(1)).write_text(json.dumps({"pid": os.getpid(), "files": files}), encoding="utf-8")
    runpy.run_module("vixws_anyio", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
