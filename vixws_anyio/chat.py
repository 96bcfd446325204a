"""The built-in chat application; `vixws serve` runs it where no other is named."""

from __future__ import annotations

from vixws_core.app.chat import build

__all__ = ["build"]
