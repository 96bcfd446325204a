"""docs/limits.md names every limit that can be set, with its default as it is."""

from __future__ import annotations

import re

from tests.serving import ROOT
from vixws_anyio.config import default, show
from vixws_anyio.config.settings import SETTINGS

PAGE = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| [^|]+ \| `(\w+)` \| `([^`]+)` \|", PAGE, re.MULTILINE)
NO_LIMITS = {"trustedProxies", "host", "port", "backend", "uvloop", "tlsCert", "tlsKey", "url", "listen", "unstored"}
NO_LIMITS |= {"access", "retention", "allowedOrigins", "cancelHandlers", "deflate", "format", "level", "trace"}


def test_every_limit_is_on_the_page_with_its_default() -> None:
    expected = {setting.key: show(default(setting)) for setting in SETTINGS if setting.key not in NO_LIMITS}

    assert {key: float(value) if value != "false" else 0.0 for key, value in ROWS} == {
        key: float(value) if value != "false" else 0.0 for key, value in expected.items()
    }


def test_no_limit_is_on_the_page_twice() -> None:
    assert len({key for key, _ in ROWS}) == len(ROWS) > 30
