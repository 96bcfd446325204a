"""Import paths that programs use: what each exported once, it exports still."""

from __future__ import annotations

import importlib
from typing import Final

import pytest

EXPORTS: Final = {
    "vixws_core": (
        "BadMessage BadRoom Hub HubConfig JsonMessage LocalError Pump Refused StoreError StoredMessage "
        "TooManyRooms kvs_to_json"
    ),
    "vixws_core.hub": ("Hub"),
    "vixws_core.wire": (
        "RETRY_CODES Envelope HelloPayload HistoryPayload JoinPayload SincePayload answer decode "
        "decode_payload error find_ref quote room_message store_error stored_message"
    ),
    "vixws_core.app": ("App BadRoom Router Session Steps Views Waiting"),
    "vixws_core.client": (
        "MOVES ClientCancel ClientClosed ClientConfig ClientEffect ClientInput ClientJoin ClientLeave "
        "ClientMachine ClientMessage ClientOpened ClientPublish ClientRequest ClientSend ClientStart "
        "ClientState ClientStop MessageHandled OpenTransport Position PublishSettled RequestSettled "
        "RoomGap RoomJoined RoomLeft RoomLive RoomReset ServerRefused TransportFailed TransportOpened"
    ),
    "vixws_core.errors": ("BadMessage BadRoom LocalError Refused StoreError TooManyRooms"),
    "vixws_core.effects": (
        "AppMessage Broadcast CloseTransport Closed Drained Effect FindPosition HistoryListed Joined Left "
        "ListStore MessageReceived MessageSkipped Opened PauseReading PeerMisbehaved PublishFailed "
        "Published ReadStore Requested ResumeReading SendBytes StoreAppend"
    ),
    "vixws_core.inputs": (
        "Accept BytesFlushed BytesReceived Close Connected Disconnected HandlerFinished Input Join Leave "
        "LeaveAll ListHistory PositionKnown Publish Refuse Respond RoomAdvanced Send SendToAll Shutdown "
        "Since StoreAppended StoreFailed StoreListed StoreRead TimePassed"
    ),
    "vixws_core.testing": (
        "NO_FAULTS Client DoorOracle Faults Habits OracleFailed Profile Seen SimServer SimStore Told Trace Truth "
        "World check "
        "faults_that_count group_bytes_max held_bytes_max roomy_config run_varied tight_config "
        "varied_world"
    ),
    "vixws_anyio": (
        "Client ClientEnded ClientError Config JoinError JsonMessage Listening Page PageRequest "
        "PublishError RequestError Room Router Server Session SocketTransport StreamTransport"
    ),
    "vixws_store": (
        "BatchResult Limits MemoryMessageStore MessageStore Outbox OutboxEntry OutboxLimits Page Position "
        "SqliteMessageStore SqliteOutbox StoredMessage open_store"
    ),
    "vixws_metrics": ("WebSocketMetrics run_metrics_server"),
    "vixws_core.testing.story": ("Action CrashServer CutConnection JoinRoom LetRun Publish Send play"),
    "vixws_core.testing.strategies": ("actions faults stories"),
    "vixws_pytest": ("world world_seed"),
}
"""By path. `Respond` was called Reject before it served pages as well."""


@pytest.mark.parametrize("path", EXPORTS)
def test_what_a_path_exported_it_exports_still(path: str) -> None:
    module = importlib.import_module(path)

    assert [name for name in EXPORTS[path].split() if not hasattr(module, name)] == []
