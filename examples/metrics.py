"""Metrics: a listener of the server's own, and the blocking exporter in a thread of yours."""

import threading

from vixws_anyio import Config, Server, Session
from vixws_metrics import WebSocketMetrics, run_metrics_server

metrics = WebSocketMetrics()
server = Server(Config(metrics_listen="127.0.0.1:9100"), metrics=metrics)


@server.on_message
def count_words(session: Session, message: str | bytes) -> None:
    """Something to measure."""
    session.send_text(str(len(message.split())))


if __name__ == "__main__":
    # `GET /metrics` on port 9100 is answered inside the event loop. The exporter below does the same from a thread.
    threading.Thread(target=run_metrics_server, args=(metrics, "127.0.0.1", 9101), daemon=True).start()
    server.listen_blocking()
