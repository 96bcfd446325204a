"""vixws_metrics: counts what passes the door of a hub, for Prometheus."""

from .collector import WebSocketMetrics
from .exporter import run_metrics_server

__all__ = ["WebSocketMetrics", "run_metrics_server"]
