"""How the properties of the core are tried: the same examples each time, and no judgement by the clock.

`pytest --hypothesis-profile=wide` tries many more, and other ones each time.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.register_profile("wide", deadline=None, max_examples=5_000)
settings.load_profile("steady")
