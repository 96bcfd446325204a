"""`vixws config`: the effective configuration as a table or JSON, and the table of settings as Markdown."""

from __future__ import annotations

import json
from typing import Final

from ..config.config import Config, default, plain, show
from ..config.settings import SECTIONS, SETTINGS
from .terminal import print_table

__all__ = ["as_json", "as_markdown", "print_config"]

_INTRODUCTION: Final = """\
# Configuration

Defaults < a JSON file (`--config FILE`) < the environment < flags: whoever comes later wins, setting by setting.
`vixws config` takes the same flags as `vixws serve` and prints each setting's effective value and where it came from.

```json
{"websocket": {"port": 9090, "maxMessageSize": 65536, "idleTimeout": 600, "pingInterval": 30}}
```

- Keys of a file are camelCase, as below, or snake_case (`max_message_size`). A key that is unknown, stands twice
  or sits in another section is an error, and so is an unknown `VIXWS_…` variable; the message names the likeliest
  one. (What Kubernetes sets for a service called `vixws`, `VIXWS_SERVICE_…` and `VIXWS_PORT_…`, is passed over.)
- The variable of a flag has its words: `--max-message-size` is `VIXWS_MAX_MESSAGE_SIZE`. Lists are separated by
  commas there; switches take `true`, `false`, `1`, `0`, `yes`, `no`, `on`, `off`, and as a flag `--uvloop` or
  `--no-uvloop`.
- Times are seconds, sizes are bytes. Relative paths start in the current folder.
- A mistake ends `vixws serve` with one line and status 2:
  `config.json: websocket.port: expected an integer from 0 to 65535, got "9090"`.
- In Python: `Config.from_file("config.json")`, or `Config(port=0, message_bytes_max=1024)` with the names of the
  column *Python*, or `Config.load(file, environ, flags)` for all the layers. The settings of the `Server` that
  `vixws serve --app` names are defaults beneath the file.

This page is written by `vixws config --markdown`.
"""


def as_markdown() -> str:
    """`docs/configuration.md`, whole."""
    parts = [_INTRODUCTION]
    for section in SECTIONS:
        settings = [setting for setting in SETTINGS if setting.section == section]
        parts.append(f"\n## {section}\n\n")
        if not settings:
            parts.append("No settings in this version.\n")
            continue
        parts.append("| Key | Default | Range | Meaning | Flag | Variable | Python |\n|---|---|---|---|---|---|---|\n")
        for setting in settings:
            cells = (
                f"`{setting.key}`",
                f"`{show(default(setting))}`",
                setting.kind.range,
                setting.meaning,
                f"`{setting.flag}`",
                f"`{setting.variable}`",
                f"`{setting.field}`",
            )
            parts.append(f"| {' | '.join(cells)} |\n")
    return "".join(parts)


def as_json(config: Config) -> str:
    """`{section: {key: {"value", "source"}}}`."""
    found: dict[str, dict[str, object]] = {}
    for setting in SETTINGS:
        value = {"value": getattr(config, setting.field), "source": config.source(setting.field)}
        found.setdefault(setting.section, {})[setting.key] = value
    return json.dumps(found, indent=2, ensure_ascii=False, default=plain)


def print_config(config: Config) -> None:
    """Writes a table: the setting, its value, where that came from."""
    rows = [(setting.path, show(getattr(config, setting.field)), config.source(setting.field)) for setting in SETTINGS]
    print_table(("SETTING", "VALUE", "SOURCE"), rows, grey_if="default")
