"""Checks about appending: offsets, ids, keys, commits, content."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import AsyncExitStack

import anyio

from vixws_core.codes import FENCED, MID_CONFLICT, SEQ_GAP, STALE_MID
from vixws_core.errors import LocalError
from vixws_core.inputs import RoomAdvanced, StoreAppended, StoreFailed
from vixws_core.message import Json, JsonMessage
from vixws_core.producers import SENDER_MAX
from vixws_core.protocols import MessageStore

from .parts import Check, Inbox, MakeStore, Reopen, appended, ask, check, equal, fill, rising

__all__ = ["APPEND_CHECKS"]

ROOM_NAMES = ("'; DROP TABLE ws_messages; --", "%", "_", '"', "\\", "a b", "ä/日本/🎉", "x" * 128, "*?[a-z]")

PAYLOADS = (
    b"{}",
    b'{"n":123456789012345678901234567890,"m":-0.10,"e":1E400}',
    b'{"deep":[[[{"a":[null,true,{"b":[]}]}]]], "spaces" : 1 }',
    '{"text":"日本 🎉 ü"}'.encode(),
    b'{"quotes":"\\"\'\\\\ \\u0000 %s ? :a"}',
    b'{"big":"' + b"x" * 100_000 + b'"}',
)


@check
async def offsets_are_dense_in_each_room_and_ids_rise_over_all(store: MessageStore) -> None:
    """Offsets count from 1 in each room; ids rise over the whole store in order of appending."""
    asks = [ask(number, f"room{number % 3}") for number in range(30)]
    first = await store.append_batch(asks)
    second = await store.append_batch(asks)

    answers = [appended(answer) for answer in (*first.answers, *second.answers)]
    equal(list(range(30)) * 2, [answer.request for answer in answers], "answers stand in order of the appends")
    equal([1 + number // 3 for number in range(60)], [answer.off for answer in answers], "offsets are dense")
    rising([answer.id for answer in answers], "ids rise in order of appending")


@check
async def append_takes_four_arguments_or_one_message(store: MessageStore) -> None:
    """Both forms of `append` store what they say and return the id."""
    first = await store.append("event", "africa", "chat.message", {"user": "ada", "n": 2**80})
    second = await store.append(JsonMessage(type="chat.note", room="africa", payload={"a": [1]}, kind="memo"))
    third = await store.append("event", "africa", "chat.message", ["text", "Hi"])

    rows = await store.list_by_room("africa", 10)
    equal([first, second, third], [row.id for row in rows], "append returns the id of its row")
    equal(["chat.message", "chat.note", "chat.message"], [row.type for row in rows], "the type is kept")
    equal(["event", "memo", "event"], [row.kind for row in rows], "the kind is kept")
    equal([{"user": "ada", "n": 2**80}, {"a": [1]}, {"text": "Hi"}], [row.payload for row in rows], "payload is kept")
    equal([1, 2, 3], [row.off for row in rows], "direct appends have offsets like all")


@check
async def wrong_arguments_of_append_are_the_callers_fault(store: MessageStore) -> None:
    """`append` raises `LocalError` and stores nothing for what no client could publish, and so none could read."""
    wrong: tuple[tuple[str, str, str, Json], ...] = (
        ("event", "r", "", {}),
        ("event", "r", "t" * 129, {}),
        ("event", "r", "$joined", {}),
        ("", "r", "t", {}),
        ("k" * 65, "r", "t", {}),
        ("event", "r", "t", 5),
        ("event", "r", "t", b"{no JSON}"),
        ("event", "r", "t", b"[1]"),
        ("event", "r", "t", {"x": float("nan")}),
        ("event", "\ud800", "t", {}),
        ("event", "r\n", "t", {}),
        ("event", "", "t", {}),
    )
    for arguments in wrong:
        try:
            await store.append(*arguments)
        except LocalError:
            continue
        raise AssertionError(f"append{arguments!r} must raise LocalError")

    for given in (ask(1, kind=""), ask(1, type="$joined"), ask(1, payload=b"{"), ask(1, mid="m" * 129), ask(1, "r\n")):
        try:
            await store.append_batch([ask(2), given])
        except LocalError:
            continue
        raise AssertionError(f"append_batch with {given!r} must raise LocalError")

    equal([], await store.replay_from(""), "a refused append stores nothing")


@check
async def a_repeated_key_is_a_dup_with_the_first_position(store: MessageStore) -> None:
    """The same key and digest is answered with the first offset and id, within a commit and after it."""
    mine = ask(1, mid="m1", digest=b"d" * 16, scope="ada")
    first = await store.append_batch([mine, ask(2), ask(3, mid="m1", digest=b"d" * 16, scope="ada")])
    second = await store.append_batch([ask(4, mid="m1", digest=b"d" * 16, scope="ada")])

    original = appended(first.answers[0])
    equal(False, original.dup, "a first append is no dup")
    for answer in (first.answers[2], second.answers[0]):
        again = appended(answer)
        equal((True, original.off, original.id), (again.dup, again.off, again.id), "a dup has the first position")
    equal((), second.advanced, "a dup advances no room")
    equal([(1, 2)], [tuple(r.off for r in room.entries) for room in first.advanced], "a dup adds no entry")


@check
async def a_repeated_key_with_other_content_is_a_conflict(store: MessageStore) -> None:
    """The same key with another digest fails `mid_conflict`, for good; scopes and rooms keep keys apart."""
    await store.append_batch([ask(1, mid="m", digest=b"a" * 16, scope="ada")])
    result = await store.append_batch(
        [
            ask(2, mid="m", digest=b"b" * 16, scope="ada"),
            ask(3, mid="m", digest=b"b" * 16, scope="bob"),
            ask(4, "other", mid="m", digest=b"b" * 16, scope="ada"),
        ]
    )

    conflict, bob, other = result.answers
    if not isinstance(conflict, StoreFailed):
        raise AssertionError(f"another content under a known key must fail, got {conflict}")
    equal((MID_CONFLICT, False), (conflict.code, conflict.retry), "a conflict is final")
    equal((2, False), (appended(bob).off, appended(bob).dup), "scopes keep keys apart")
    equal((1, False), (appended(other).off, appended(other).dup), "rooms keep keys apart")


@check
async def an_ordered_producers_numbers_are_taken_one_after_the_other(store: MessageStore) -> None:
    """`~producer:epoch:seq`: the next number is stored, in a commit as well as after it; any other one fails for good.

    A repeat is a dup first of all; then comes the epoch, the number, and whether its message is still there. Rooms,
    scopes and producers count apart, and a higher epoch begins at 1.
    """

    async def outcome(*mids: str, room: str = "room", scope: str = "ada") -> list[object]:
        asks = [ask(0, room, mid=mid, digest=b"d" * 16, scope=scope) for mid in mids]
        return [
            (found.code, found.retry, found.expected) if isinstance(found, StoreFailed) else (found.off, found.dup)
            for found in (await store.append_batch(asks)).answers
        ]

    gap = (SEQ_GAP, False, 1)
    equal([gap], await outcome("~p:1:2"), "the first number is 1")
    equal(0, (await store.position("room")).head, "nothing is stored of what is refused")
    equal(
        [(1, False), (2, False), (SEQ_GAP, False, 3), (2, True)],
        await outcome(*(f"~p:1:{n}" for n in (1, 2, 4, 2))),
        "",
    )
    equal([(3, False), (1, True)], await outcome("~p:1:3", "~p:1:1"), "after a commit as within it")
    equal([gap, (1, False)], await outcome("~p:1:4", "~p:1:1", room="other"), "rooms count apart")
    equal([gap, (4, False)], await outcome("~p:1:4", "~p:1:1", scope="bob"), "scopes count apart")
    equal([gap, (5, False)], await outcome("~q:7:4", "~q:7:1"), "producers count apart")
    equal([(SEQ_GAP, False, 1), (6, False)], await outcome("~p:2:4", "~p:2:1"), "a higher epoch begins at 1")
    equal([(FENCED, False, None), (1, True)], await outcome("~p:1:4", "~p:1:1"), "an epoch that is over takes no more")
    await store.trim("room", 3)
    equal([(FENCED, False, None)], await outcome("~p:1:1"), "what is trimmed is no dup any more")
    await store.trim("room", 6)
    equal([(STALE_MID, False, None), (7, False)], await outcome("~p:2:1", "~p:2:2"), "a number is not stored twice")
    await store.append_batch([ask(0, mid="m", scope="ada")])
    equal([(9, False)], await outcome("~p:2:3"), "other messages of the room do not count")


@check
async def a_senders_producers_in_a_room_have_a_bound(store: MessageStore) -> None:
    """Of one sender a room knows `SENDER_MAX` producers; over it the idlest goes, of several the first by name."""

    async def outcomes(names: Iterable[str], seq: int, scope: str = "ada") -> list[int | None]:
        asks = [ask(0, "room", mid=f"~{name}:1:{seq}", digest=b"d" * 16, scope=scope) for name in names]
        return [
            found.expected if isinstance(found, StoreFailed) else 0
            for found in (await store.append_batch(asks)).answers
        ]

    names = [f"p{number:03}" for number in range(SENDER_MAX + 4)]
    equal([0], await outcomes(["p000"], 1, "bob"), "another sender's")
    equal([0] * 4, await outcomes(names[:4], 1), "the first")
    equal([0] * SENDER_MAX, await outcomes(names[4:], 1), "as many as a room knows, and four more")
    equal([0], await outcomes(["p000"], 2, "bob"), "another sender's producer is not forgotten for them")
    equal([1, 1, 0, 0], await outcomes(["p000", "p003", "p004", names[-1]], 2), "the idlest four are forgotten")
    equal([0, 0], await outcomes(["p000", names[-1]], 1), "one that is forgotten begins anew; a repeat stays one")


@check
async def content_comes_back_byte_for_byte(store: MessageStore) -> None:
    """Payload bytes, room names that look like SQL or patterns, sender and key survive."""
    for number, room in enumerate(ROOM_NAMES):
        for payload in PAYLOADS:
            await store.append_batch([ask(0, room, payload, mid=f"m{payload[:40]!r}", sender=f"u{number}", type="t.ü")])
    for number, room in enumerate(ROOM_NAMES):
        page = await store.read(room, 0, 1 << 40, 500, 1 << 30)
        equal(list(PAYLOADS), [row.payload_json for row in page.rows], f"payloads of {room!r} come back as they were")
        equal({(room, f"u{number}", "t.ü", "event")}, {(r.room, r.sender, r.type, r.kind) for r in page.rows}, "texts")
        equal([f"m{p[:40]!r}" for p in PAYLOADS], [row.mid for row in page.rows], "the key is kept")
        equal(True, all(row.ts.endswith("Z") and "T" in row.ts for row in page.rows), "ts is RFC 3339 UTC")
        equal(json.loads(PAYLOADS[2]), page.rows[2].payload, "a nested payload decodes")


async def advances_come_before_answers_in_one_post(make: MakeStore, reopen: Reopen | None) -> None:
    """One commit is one post: `RoomAdvanced` of its rooms, then its answers. A dup advances nothing."""
    store = make()
    inbox = Inbox(store)
    async with store.run(inbox.post):
        inbox.show(*[ask(number, f"room{number % 2}", mid=f"m{number}") for number in range(10)])
        await inbox.wait_answers(set(range(10)))
        before = len(inbox.posts)
        inbox.show(ask(10, "room0", mid="m0"))
        dup = (await inbox.wait_answers({10}))[10]

        equal(True, isinstance(dup, StoreAppended) and dup.dup, "a repeated key is answered as a dup")
        equal([(dup,)], inbox.posts[before:], "a dup posts no RoomAdvanced")
        await store.append("event", "room0", "direct", {})

    inbox.check_order()
    for post in inbox.posts:
        kinds = [isinstance(input, RoomAdvanced) for input in post]
        equal(sorted(kinds, reverse=True), kinds, "in a post, advances stand before answers")
    last = inbox.posts[-1]
    equal(["direct"], [r.type for a in last if isinstance(a, RoomAdvanced) for r in a.entries], "a direct append posts")


async def appends_in_flight_share_commits(make: MakeStore, reopen: Reopen | None) -> None:
    """256 appends shown in single steps, and 256 direct ones at once, take a few commits each."""
    store = make()
    if store.durable == "memory":
        return
    inbox = Inbox(store)
    async with store.run(inbox.post):
        for number in range(256):
            inbox.show(ask(number, f"room{number % 5}"))
        await inbox.wait_answers(set(range(256)))
        shown = len(inbox.posts)
        async with anyio.create_task_group() as group:
            for _ in range(256):
                group.start_soon(store.append, JsonMessage(type="note", room="room"))

    equal(True, shown <= 8, f"256 appends of a hub share at most 8 commits (took {shown})")
    direct = len(inbox.posts) - shown
    equal(True, direct <= 8, f"256 direct appends share at most 8 commits (took {direct})")
    inbox.check_order()


async def what_was_accepted_is_answered_at_the_end(make: MakeStore, reopen: Reopen | None) -> None:
    """Leaving `run` with appends queued stores and answers all of them; later calls are refused."""
    store = make()
    inbox = Inbox(store)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(store.run(inbox.post))
        inbox.show(*[ask(number) for number in range(1_000)])

    answers = await inbox.wait_answers(set(range(1_000)))
    equal(True, all(isinstance(answer, StoreAppended) for answer in answers.values()), "queued appends are stored")
    equal(0, store.queue_depth, "nothing is queued after the end")
    for call in (store.append("event", "r", "t", {}), store.position("r")):
        try:
            await call
        except LocalError:
            continue
        raise AssertionError("a store that does not run must raise LocalError")


async def kept_data_survives(make: MakeStore, reopen: Reopen | None) -> None:
    """Another store over the same data has the same history, positions and keys, and higher new ids."""
    assert reopen is not None
    store = make()
    async with store.run():
        ids = await fill(store, 10)
        await store.append_batch([ask(0, mid="m", digest=b"d" * 16, sender="ada")])
        await store.trim("room", 3)
        page = await store.read("room", 0, 100)
        place = await store.position("room", 3)
        empty = await store.position("empty")

    again = reopen(store)
    async with again.run():
        equal(page, await again.read("room", 0, 100), "history survives, trimmed as it was")
        equal(place, await again.position("room", 3), "the position survives, the id at the floor too")
        equal(empty, await again.position("empty"), "the store's epoch survives")
        result = await again.append_batch([ask(1, mid="m", digest=b"d" * 16), ask(2)])
        equal((True, 11), (appended(result.answers[0]).dup, appended(result.answers[0]).off), "keys survive")
        equal(12, appended(result.answers[1]).off, "offsets go on")
        equal(True, appended(result.answers[1]).id > page.rows[-1].id > ids[-1], "ids go on rising")


APPEND_CHECKS = (
    offsets_are_dense_in_each_room_and_ids_rise_over_all,
    append_takes_four_arguments_or_one_message,
    wrong_arguments_of_append_are_the_callers_fault,
    a_repeated_key_is_a_dup_with_the_first_position,
    a_repeated_key_with_other_content_is_a_conflict,
    content_comes_back_byte_for_byte,
    Check(advances_come_before_answers_in_one_post, durable=False),
    Check(appends_in_flight_share_commits, durable=False),
    Check(what_was_accepted_is_answered_at_the_end, durable=False),
    Check(kept_data_survives, durable=True),
)
