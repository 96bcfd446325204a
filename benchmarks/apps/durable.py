"""Stores and sends what is published, on a store that the environment describes: file, FULL or NORMAL, batch size."""

from os import environ

from vixws_anyio import Server
from vixws_store import Limits, SqliteMessageStore

server = Server(
    store=SqliteMessageStore(
        environ.get("DURABLE_FILE", "durable.db"),
        synchronous=environ.get("DURABLE_SYNCHRONOUS", "FULL"),
        limits=Limits(batch_rows_max=int(environ.get("DURABLE_ROWS", Limits().batch_rows_max))),
    )
)
