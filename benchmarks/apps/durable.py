"""Stores and sends what is published, by the server's own rule, on a store that the environment describes.

`DURABLE_FILE` is its file, `DURABLE_SYNCHRONOUS` is FULL or NORMAL, `DURABLE_ROWS` how many rows one commit takes.
"""

import os

from vixws_anyio import Server
from vixws_store import Limits, SqliteMessageStore

server = Server(
    store=SqliteMessageStore(
        os.environ.get("DURABLE_FILE", "durable.db"),
        synchronous=os.environ.get("DURABLE_SYNCHRONOUS", "FULL"),
        limits=Limits(batch_rows_max=int(os.environ.get("DURABLE_ROWS", Limits().batch_rows_max))),
    )
)
