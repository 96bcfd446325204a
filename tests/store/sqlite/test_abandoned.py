"""A store that was entered and never left does not hold up the end of its process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from tests.serving import environment
from vixws_store import SqliteMessageStore
from vixws_store.inspect import check

LOOPS = {
    "asyncio": "anyio.run(main)",
    "asyncio.run": "import asyncio; asyncio.run(main())",
    "a loop by hand": "import asyncio; loop = asyncio.new_event_loop(); loop.run_until_complete(main())",
    "uvloop": "anyio.run(main, backend_options={'use_uvloop': True})",
    "trio": "anyio.run(main, backend='trio')",
    "trio.run": "import trio; trio.run(main)",
}

WAYS = {
    "by hand": """
    entered = store.run()
    await entered.__aenter__()
    await store.append("event", "room", "note", {})
    KEPT.append(entered)
""",
    "by hand and forgotten": """
    await store.run().__aenter__()
    await store.append("event", "room", "note", {})
""",
    "a generator that is not closed": """
    async def rows():
        async with store.run():
            yield await store.append("event", "room", "note", {})
            yield 2
    KEPT.append(rows())
    await anext(KEPT[0])
""",
    "an outbox": """
    outbox = SqliteOutbox(sys.argv[1] + ".out")
    entered = outbox.run()
    await entered.__aenter__()
    KEPT.append(entered)
    async with store.run():
        await store.append("event", "room", "note", {})
""",
    "an error": """
    entered = store.run()
    await entered.__aenter__()
    await store.append("event", "room", "note", {})
    KEPT.append(entered)
    raise ValueError("on purpose")
""",
    "an exit": """
    entered = store.run()
    await entered.__aenter__()
    await store.append("event", "room", "note", {})
    KEPT.append(entered)
    raise SystemExit(0)
""",
}

OTHERS = [way for way in WAYS if way != "by hand"]

SCRIPT = """
import sys, anyio
from vixws_store import SqliteMessageStore, SqliteOutbox
KEPT = []

async def main():
    store = SqliteMessageStore(sys.argv[1])
    KEPT.append(store)
    KEPT.clear()
{way}
    print("appended", flush=True)

{loop}
print("over", flush=True)
"""


@pytest.mark.parametrize(
    ("loop", "way"),
    [*((loop, "by hand") for loop in LOOPS), *((loop, way) for loop in ("asyncio", "trio") for way in OTHERS)],
)
def test_the_end_does_not_wait_for_a_store_that_nobody_left(tmp_path: Path, way: str, loop: str) -> None:
    path = tmp_path / "a.db"
    environ = environment()
    del environ["PYTHONWARNINGS"]  # That it was not closed is what Python may well say.
    began = time.monotonic()

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(way=WAYS[way], loop=LOOPS[loop]), str(path)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    took = time.monotonic() - began
    assert took < 10, done.stderr
    assert "Fatal" not in done.stderr
    assert done.returncode >= 0, done.stderr
    assert not Path(f"{path}-wal").exists()  # It was closed in good order.
    assert check(path).rows == 1

    async def again() -> None:
        async with SqliteMessageStore(path).run():
            pass

    anyio.run(again)
