"""TLS of a server: its context, its certificate, its handshakes."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import anyio
from anyio.abc import SocketStream
from anyio.streams.tls import TLSStream

from ..config.config import Config
from ..config.layers import ConfigError
from ..logs import clean, log

__all__ = ["load_certificate", "server_context", "shake_hands"]


def server_context(config: Config) -> ssl.SSLContext | None:
    """The context that a configuration asks for, TLS 1.2 or later; None where it names no certificate.

    Raises: `ConfigError`, one line that names the file.
    """
    if config.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, config)
    return context


def load_certificate(context: ssl.SSLContext, config: Config) -> None:
    """Reads certificate and key, for handshakes from now on. Raises: `ConfigError`, one line that names the file."""
    assert config.tls_cert is not None
    for field, path in (("tls_cert", config.tls_cert), ("tls_key", config.tls_key)):
        assert path is not None
        try:
            Path(path).read_bytes()
        except OSError as exc:
            raise ConfigError(
                f"{config.place(field)}: expected a readable PEM file, got {path}: {exc.strerror}"
            ) from None
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key, password="")  # Never asks at a terminal.
    except ssl.SSLError as exc:
        raise ConfigError(
            f"{config.place('tls_cert')}: expected a certificate and its key in PEM, got {config.tls_cert}"
            f" and {config.tls_key}: {exc.reason or exc}"
        ) from None


async def shake_hands(sock: socket.socket, peer: str, context: ssl.SSLContext, deadline: float) -> TLSStream | None:
    """Secures an accepted socket; None, logged and closed, where its peer does not manage that in time.

    `deadline` is in the loop's clock.
    """
    stream: SocketStream | None = None
    secured: TLSStream | None = None
    try:
        stream = await SocketStream.from_socket(sock)
        with anyio.fail_after(deadline - anyio.current_time()):
            secured = await TLSStream.wrap(stream, server_side=True, ssl_context=context, standard_compatible=False)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError) as exc:
        log.info("TLS handshake with %s failed: %s", clean(peer), clean(repr(exc)))
    except Exception as exc:  # Whatever OpenSSL says to a stranger's bytes ends only this connection.
        log.error("TLS handshake with %s failed: %s", clean(peer), clean(repr(exc)), exc_info=exc)
    finally:
        if secured is None:
            if stream is None:
                sock.close()
            else:
                with anyio.CancelScope(shield=True):
                    await anyio.aclose_forcefully(stream)
    return secured
