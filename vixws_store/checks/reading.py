"""Checks about reading: pages, positions, history, replay, trimming."""

from __future__ import annotations

from vixws_core.effects import FindPosition, ListStore, ReadStore
from vixws_core.errors import LocalError
from vixws_core.inputs import PositionKnown, StoreFailed, StoreListed, StoreRead
from vixws_core.log import Position
from vixws_core.protocols import MessageStore

from .parts import Check, Inbox, MakeStore, Reopen, appended, ask, check, equal, fill, rising

__all__ = ["READ_CHECKS"]


@check
async def a_page_obeys_its_bounds(store: MessageStore) -> None:
    """`after` is exclusive, `until` inclusive; rows and bytes are bounded; one row comes where one exists."""
    await fill(store, 20, payload=b'{"x":"' + b"y" * 92 + b'"}')  # 100 bytes each.

    async def offs(after: int, until: int, rows: int, size: int, newest: bool = False) -> list[int]:
        return [row.off for row in (await store.read("room", after, until, rows, size, newest)).rows]

    equal([4, 5, 6, 7], await offs(3, 7, 500, 1 << 20), "after < off ≤ until")
    equal([4, 5], await offs(3, 7, 2, 1 << 20), "rows_max bounds a page")
    equal([7, 6], await offs(3, 7, 2, 1 << 20, True), "newest_first begins at until")
    equal([4, 5, 6], await offs(3, 20, 500, 300), "bytes_max bounds a page")
    equal([4, 5, 6], await offs(3, 20, 500, 399), "a row over bytes_max waits for the next page")
    equal([20, 19], await offs(0, 1 << 62, 500, 250, True), "bytes_max bounds a page from the newest")
    equal([4], await offs(3, 20, 500, 1), "a page holds one row even if it is too big")
    equal([], await offs(3, 3, 500, 1 << 20), "an empty range is an empty page")
    equal([], await offs(20, 1 << 62, 500, 1 << 20), "nothing is above the head")
    equal([], await offs(1 << 62, 1 << 63, 500, 1 << 20), "any offset may be asked for")
    equal([], await offs(0, 20, 0, 1 << 20), "rows_max 0 gives no rows")
    equal([1], await offs(-5, 1, 500, 1 << 20), "offsets begin at 1")
    equal([1], await offs(-(1 << 70), 1, 500, 1 << 20), "any offset may be asked for")


@check
async def a_position_names_head_floor_and_ids(store: MessageStore) -> None:
    """`position` gives the head's id and the id at an offset, None where there is no such entry."""
    ids = await fill(store, 5)

    place = await store.position("room", 2)
    equal((0, 5, ids[4], ids[1]), (place.floor, place.head, place.id, place.id_at), "a position")
    for off in (0, -1, 6, 1 << 70):
        equal(None, (await store.position("room", off)).id_at, f"there is no entry at {off}")


@check
async def an_empty_room_has_the_stores_epoch_and_no_row(store: MessageStore) -> None:
    """A room without messages stands at 0 in the store's epoch; asking writes nothing; its first message takes it."""
    before = await store.position("nowhere", 1)
    page = await store.read("nowhere", 0, 100)
    listed = await store.list_by_room("nowhere", 10)
    other = await store.position("elsewhere")
    await fill(store, 1, "nowhere")
    after = await store.position("nowhere")

    equal(Position(before.ep, 0, 0, "", None), before, "an empty room's position")
    equal(True, before.ep != "", "the epoch has a name")
    equal((before.ep, 0, 0, ()), (page.ep, page.floor, page.head, page.rows), "an empty room's page")
    equal([], listed, "an empty room's history")
    equal(before.ep, other.ep, "rooms without messages share the store's epoch")
    equal((before.ep, 1), (after.ep, after.head), "the first message takes the store's epoch")


@check
async def trimming_keeps_the_floor_and_its_id(store: MessageStore) -> None:
    """`trim` forgets rows and keys up to an offset; offsets go on; the id at the floor is kept."""
    ids = await fill(store, 10)
    await store.append_batch([ask(0, mid="m", digest=b"d" * 16)])

    equal(4, await store.trim("room", 4), "trim returns how many it forgot")
    equal(0, await store.trim("room", 4), "a second trim forgets nothing")
    equal(0, await store.trim("room", -1), "a negative offset forgets nothing")
    equal(0, await store.trim("nowhere", 10), "an empty room has nothing to forget")
    page = await store.read("room", 0, 100)
    equal((4, 11, 5), (page.floor, page.head, page.rows[0].off), "a trimmed room")
    equal(ids[3], (await store.position("room", 4)).id_at, "the id at the floor is kept")
    equal(None, (await store.position("room", 3)).id_at, "below the floor nothing is known")
    equal(7, await store.trim("room", 1 << 62), "trim stops at the head")
    place = await store.position("room", 11)
    equal((11, 11, place.id), (place.floor, place.head, place.id_at), "an emptied room keeps its head and id")
    again = appended((await store.append_batch([ask(1, mid="m", digest=b"d" * 16)])).answers[0])
    equal((12, False), (again.off, again.dup), "offsets go on; a key lives as long as its message")


@check
async def history_is_listed_by_id(store: MessageStore) -> None:
    """`list_by_room` gives the newest below an id, oldest first; any id may be asked for."""
    for number in range(6):
        await store.append("event", "room", f"t{number}", {})
        await store.append("event", "other", "x", {})
    rows = await store.list_by_room("room", 100)
    others = await store.list_by_room("other", 100)

    rising([row.id for row in rows], "history is listed oldest first")
    equal([f"t{number}" for number in range(6)], [row.type for row in rows], "all of a room is listed")
    equal(rows[4:], await store.list_by_room("room", 2), "the newest are listed")
    equal(rows[1:3], await store.list_by_room("room", 2, rows[3].id), "before an id of the room")
    equal(rows[2:4], await store.list_by_room("room", 2, others[3].id), "before an id of another room")
    equal(rows[2:4], await store.list_by_room("room", 2, others[3].id.lstrip("0")), "leading zeros may be missing")
    equal([], await store.list_by_room("room", 2, rows[0].id), "nothing is before the first")
    equal([], await store.list_by_room("room", 2, "0"), "nothing is before 0")
    equal(rows, await store.list_by_room("room", 100, "9" * 20), "any number may be asked for")
    equal([], await store.list_by_room("room", 0), "limit 0 lists nothing")
    await store.trim("room", 2)
    equal(rows[2:4], await store.list_by_room("room", 100, rows[4].id), "what was trimmed is not listed")
    for bad in ("x", "", "-1", "1.5", "٣", "1" * 21):
        try:
            await store.list_by_room("room", 2, bad)
        except LocalError:
            continue
        raise AssertionError(f"list_by_room before {bad!r} must raise LocalError")


@check
async def replay_gives_all_rooms_in_order_of_ids(store: MessageStore) -> None:
    """`replay_from` gives what has a higher id, over all rooms, in order, all of it or up to a limit."""
    asks = [ask(number, f"room{number % 7}") for number in range(1_200)]
    ids = [appended(answer).id for answer in (await store.append_batch(asks)).answers]

    equal(ids, [row.id for row in await store.replay_from("")], "everything is replayed")
    equal(ids[101:], [row.id for row in await store.replay_from(ids[100])], "the id itself is not replayed")
    equal(ids[101:801], [row.id for row in await store.replay_from(ids[100], 700)], "a limit is kept")
    equal(ids, [row.id for row in await store.replay_from("0")], "0 is before the first")
    equal([], await store.replay_from(ids[-1]), "nothing is after the last")
    equal([], await store.replay_from("9" * 20), "any number may be asked for")


async def a_hubs_reads_are_answered(make: MakeStore, reopen: Reopen | None) -> None:
    """`ReadStore`, `FindPosition` and `ListStore` are answered with their request's number, equal ones too."""
    store = make()
    inbox = Inbox(store)
    async with store.run(inbox.post):
        ids = await fill(store, 5)
        page = await store.read("room", 1, 4)
        rows = await store.list_by_room("room", 2, ids[3])
        inbox.show(
            ReadStore(100, "room", 1, 4, 500, 1 << 20),
            ReadStore(101, "room", 1, 4, 500, 1 << 20),
            FindPosition(102, "room", 2),
            FindPosition(105, "room", None, 3),
            FindPosition(106, "room", None, 30),
            ListStore(103, "room", 2, ids[3]),
            ListStore(104, "room", 2, "no id"),
        )
        answers = await inbox.wait_answers({100, 101, 102, 103, 104, 105, 106})
        await store.trim("room", 2)
        inbox.show(ReadStore(107, "room", 1, 4, 500, 1 << 20), ReadStore(108, "room", 2, 4, 500, 1 << 20))
        inbox.show(FindPosition(109, "room", None, 30), ReadStore(110, "nowhere", 0, 4, 500, 1 << 20))
        trimmed = await inbox.wait_answers({107, 108, 109, 110})

    for request in (100, 101):
        read = StoreRead(request, page.ep, page.floor, page.head, page.rows, ids[0], "", ids[4])
        equal(read, answers[request], "a read is answered like the direct call, with the id behind which it was read")
    equal(PositionKnown(102, page.ep, 0, 5, ids[4], ids[1]), answers[102], "a position is answered")
    equal(PositionKnown(105, page.ep, 0, 5, ids[4], ids[1]), answers[105], "a position three before the head")
    equal(PositionKnown(106, page.ep, 0, 5, ids[4], None), answers[106], "a position before the first entry")
    rows_left = page.rows[1:]
    equal(StoreRead(107, page.ep, 2, 5, rows_left, None, ids[1], ids[4]), trimmed[107], "a read below the floor")
    equal(StoreRead(108, page.ep, 2, 5, rows_left, ids[1], ids[1], ids[4]), trimmed[108], "a read at the floor")
    equal(PositionKnown(109, page.ep, 2, 5, ids[4], ids[1], ids[1]), trimmed[109], "no position is below the floor")
    empty = trimmed[110]
    equal(("", ""), (getattr(empty, "floor_id", None), getattr(empty, "head_id", None)), "an empty room has no ids")
    equal(StoreListed(103, tuple(rows)), answers[103], "a list is answered")
    bad = answers[104]
    equal(True, isinstance(bad, StoreFailed) and not bad.retry, "a bad id fails for good")


READ_CHECKS = (
    a_page_obeys_its_bounds,
    a_position_names_head_floor_and_ids,
    an_empty_room_has_the_stores_epoch_and_no_row,
    trimming_keeps_the_floor_and_its_id,
    history_is_listed_by_id,
    replay_gives_all_rooms_in_order_of_ids,
    Check(a_hubs_reads_are_answered, durable=False),
)
