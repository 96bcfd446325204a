"""Checks about what is kept: redaction, trimming beside publishers, retention by rules."""

from __future__ import annotations

import anyio

from vixws_core.inputs import EntryRedacted, RoomAdvanced, StoreAppended
from vixws_core.log import REDACTED_PAYLOAD, Redacted
from vixws_core.protocols import MessageStore, Retained
from vixws_core.retention import Retention

from .parts import WAIT_S, Check, Inbox, MakeStore, Reopen, appended, ask, check, equal, fill

__all__ = ["KEEP_CHECKS"]

SECRET = b'{"card":"4111-1111-1111-1111"}'


@check
async def redacting_replaces_a_payload_and_nothing_else(store: MessageStore) -> None:
    """`redact` replaces the payload, returns epoch, offset and id, and may be repeated; all else stays as it was."""
    await store.append_batch([ask(number, payload=SECRET, mid=f"m{number}", sender="ada") for number in range(3)])
    before = await store.read("room", 0, 9)
    told = await store.redact("room", 2)
    again = await store.redact("room", 2)
    after = await store.read("room", 0, 9)

    row = before.rows[1]
    equal(Redacted(before.ep, 2, row.id), told, "redact tells where the entry is")
    equal(told, again, "redact may be repeated")
    equal([SECRET, REDACTED_PAYLOAD, SECRET], [each.payload_json for each in after.rows], "one payload is replaced")
    kept = [(r.id, r.off, r.kind, r.type, r.ts, r.mid, r.sender) for r in before.rows]
    equal(kept, [(r.id, r.off, r.kind, r.type, r.ts, r.mid, r.sender) for r in after.rows], "all else stays")
    equal((before.ep, before.floor, before.head), (after.ep, after.floor, after.head), "the room stays where it is")
    equal(REDACTED_PAYLOAD, (await store.list_by_room("room", 2))[0].payload_json, "history is redacted")
    equal(REDACTED_PAYLOAD, (await store.replay_from(""))[1].payload_json, "a replay is redacted")


@check
async def there_is_nothing_to_redact_where_there_is_no_entry(store: MessageStore) -> None:
    """`redact` is None for an empty room, for offsets that were trimmed, and for those that are not there yet."""
    await fill(store, 4)
    await store.trim("room", 2)

    for room, off in (("room", 0), ("room", -1), ("room", 2), ("room", 5), ("room", 1 << 70), ("nowhere", 1)):
        equal(None, await store.redact(room, off), f"there is no entry at {off} of {room}")
    equal(4, (await store.position("room")).head, "nothing is written")
    equal(0, (await store.position("nowhere")).head, "no room is made")


@check
async def a_redacted_messages_key_stays_known(store: MessageStore) -> None:
    """What is sent again under the key of a redacted message is a dup with its place, whatever its content is."""
    mine = ask(1, payload=SECRET, mid="m", digest=b"a" * 16, scope="ada")
    first = appended((await store.append_batch([mine])).answers[0])
    await store.redact("room", 1)
    repeats = await store.append_batch(
        [mine, ask(2, payload=b'{"other":1}', mid="m", digest=b"b" * 16, scope="ada"), ask(3, mid="m", scope="bob")]
    )

    for answer in repeats.answers[:2]:
        again = appended(answer)
        equal((True, 1, first.id), (again.dup, again.off, again.id), "a repeat has the first place")
    equal((False, 2), (appended(repeats.answers[2]).dup, appended(repeats.answers[2]).off), "other keys are others'")
    equal(REDACTED_PAYLOAD, (await store.read("room", 0, 1)).rows[0].payload_json, "no repeat brings it back")


async def a_redaction_survives_the_end(make: MakeStore, reopen: Reopen | None) -> None:
    """Opened again, a store has the redacted payload and knows the key."""
    assert reopen is not None
    store = make()
    async with store.run():
        await store.append_batch([ask(number, payload=SECRET, mid=f"m{number}") for number in range(3)])
        await store.redact("room", 2)
        page = await store.read("room", 0, 9)
    again = reopen(store)
    async with again.run():
        equal(page, await again.read("room", 0, 9), "a redaction is kept")
        answer = (await again.append_batch([ask(0, payload=b"{}", mid="m1", digest=b"x" * 16)])).answers[0]
        equal((True, 2), (isinstance(answer, StoreAppended) and answer.dup, appended(answer).off), "its key is known")


@check
async def a_long_trim_goes_on_beside_appends(store: MessageStore) -> None:
    """While many entries are trimmed, appends are stored, offsets go on, and the trim returns how many it forgot."""
    for _ in range(4):
        await fill(store, 5_000)
    trimmed: list[int] = []
    stored = 0
    async with anyio.create_task_group() as tasks:

        async def trim() -> None:
            trimmed.append(await store.trim("room", 19_990))

        tasks.start_soon(trim)
        while not trimmed:
            await store.append("event", "room", "note", {})
            stored += 1
    place = await store.position("room", 19_990)

    equal([19_990], trimmed, "trim returns how many it forgot")
    equal((19_990, 20_000 + stored), (place.floor, place.head), "appends go on")
    equal(True, place.id_at is not None, "the id at the floor is kept")


async def a_redaction_is_told(make: MakeStore, reopen: Reopen | None) -> None:
    """A hub hears of each entry that is redacted, after it heard of the entry; and of nothing that is not there."""
    store = make()
    inbox = Inbox(store)
    async with store.run(inbox.post):
        await store.append_batch([ask(number, payload=SECRET) for number in range(3)])
        found = await store.redact("room", 2)
        await store.redact("room", 9)
        await store.append_batch([ask(3)])
    assert found is not None
    told = [input for input in inbox.inputs if isinstance(input, EntryRedacted)]
    equal([EntryRedacted("room", 2, found.id)], told, "a redaction is told")
    kinds = [type(input) for input in inbox.inputs]
    equal([RoomAdvanced, EntryRedacted, RoomAdvanced], kinds, "it is told in the order of what was done")


async def rules_are_obeyed_while_it_runs(make: MakeStore, reopen: Reopen | None) -> None:
    """A store that can `retain` keeps of each room what the first fitting rule says, what was there before too."""
    store = make()
    if not isinstance(store, Retained):
        return
    async with store.run():
        await fill(store, 30, "a.old")
    store.retain(
        [Retention(pattern="a.*", count=10), Retention(pattern="b", bytes=500), Retention(pattern="c", age_s=3_600)]
    )
    async with store.run():
        for room in ("a.new", "b", "c", "d"):
            await fill(store, 30, room, b'{"x":"' + b"y" * 92 + b'"}')  # 100 bytes each.
        for room, floor in (("a.old", 20), ("a.new", 20), ("b", 25), ("c", 0), ("d", 0)):
            with anyio.move_on_after(WAIT_S):
                while (await store.position(room)).floor < floor:
                    await anyio.sleep(0.01)
            page = await store.read(room, 0, 99)
            equal((floor, 30), (page.floor, page.head), f"the floor and head of {room}")
            equal(list(range(floor + 1, 31)), [row.off for row in page.rows], f"what is kept of {room}")
            equal(True, floor == 0 or (await store.position(room, floor)).id_at is not None, "the id at the floor")


KEEP_CHECKS = (
    redacting_replaces_a_payload_and_nothing_else,
    there_is_nothing_to_redact_where_there_is_no_entry,
    a_redacted_messages_key_stays_known,
    Check(a_redaction_survives_the_end, durable=True),
    Check(a_redaction_is_told, durable=False),
    a_long_trim_goes_on_beside_appends,
    Check(rules_are_obeyed_while_it_runs, durable=False),
)
