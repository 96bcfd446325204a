"""`vixws serve`: finds the application, composes its server, and runs it until a signal."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Final, NoReturn
from urllib.parse import quote

import anyio

from vixws_core.codes import INTERNAL
from vixws_core.errors import LocalError, StoreError
from vixws_core.protocols import Consumer, MessageStore

from ..config.config import Config, ConfigError, show
from ..logs import log
from ..server.runtime import Listening
from ..server.server import Server
from ..server.signals import signals_heeded
from ..server.tls import load_certificate, server_context
from .process import memory_given_back, settle_process
from .terminal import FAILED, OK, USAGE, CommandFailed, complain, faults_of, is_fault_of_caller

__all__ = ["check_chat", "find_application", "heed_signals", "leave", "serve"]

WORKER: Final = "AnyIO worker thread"
"""What anyio calls its threads on asyncio."""

IDLE_THREAD_S: Final = 0.05
"""How soon a thread that has nothing to do has ended."""


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """Ends what runs before the loop does."""
    raise KeyboardInterrupt


def find_application(name: str | None) -> Server:
    """The `Server` that `module:attribute` names, the current folder first; the built-in chat without a name.

    Raises: `CommandFailed`, one line.
    """
    if name is None:
        from ..chat import build

        server = Server()
        build(server)
        return server
    module_name, colon, path = name.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        raise CommandFailed(f"--app: expected module:attribute such as chat:server, got {name!r:.100}")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found: object = _import(module_name, name)
    for part in path.split("."):
        if not hasattr(found, part):
            raise CommandFailed(f"--app: {name}: expected a Server there, but there is no {part!r}")
        found = getattr(found, part)
    if not isinstance(found, Server):
        raise CommandFailed(f"--app: {name}: expected a vixws_anyio.Server, got a {type(found).__name__}")
    return found


def check_chat(config: Config) -> None:
    """The built-in chat lets everybody into every room by its own handlers. Raises: `ConfigError` for `closed`."""
    if config.access == "closed":
        raise ConfigError(
            f"{config.place('access')}: expected auto or open, or an application by --app, as the built-in chat lets "
            'everybody into every room, got "closed"'
        )


def _import(module: str, name: str) -> object:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as exc:
        if isinstance(exc, ModuleNotFoundError) and exc.name is not None and f"{module}.".startswith(f"{exc.name}."):
            raise CommandFailed(f"--app: {name}: expected a module that can be imported, found no {exc.name}") from None
        frames = traceback.extract_tb(exc.__traceback__)
        where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        words = str(exc)
        if isinstance(exc, SyntaxError) and exc.filename is not None:  # The place is in the text, no frame of it.
            words, where = exc.msg, f" ({exc.filename}:{exc.lineno})"
        raise CommandFailed(f"--app: {name}: importing {module} failed: {type(exc).__name__}: {words}{where}") from None


def serve(
    server: Server,
    config: Config,
    open_store: Callable[[str], MessageStore],
    make_metrics: Callable[[], Consumer],
) -> int:
    """Runs `server` by `config`; returns the exit code.

    A store or metrics that the application brought along are kept, unless the configuration names others.
    """
    _need_loop(config)
    if server.store is None or config.source("store") not in ("default", "the application"):
        server.store = _store(config, open_store)
        store = config.store
    else:
        store = _url_of(server.store)
    if config.metrics_listen != "off" and server.metrics is None:
        server.metrics = make_metrics()
    server.config = config
    if config.tls_cert is not None:
        server.tls = server_context(config)
    settle_process()
    announced: list[Listening] = []

    def ready(listening: Listening) -> None:
        announced.append(listening)
        _announce(listening, store)

    try:
        options = {"use_uvloop": config.uvloop} if config.backend == "asyncio" else {}
        anyio.run(_run, server, config, ready, backend=config.backend, backend_options=options)
        code = OK
    except Exception as exc:
        code = _failed(exc, bool(announced))
    finally:
        heed_signals(signal.SIG_IGN)  # We are leaving already.
    _leave_threads_behind(code)
    return code


def _leave_threads_behind(code: int) -> None:
    """Ends the process where handlers still run in threads, which Python would wait for; their time is over."""
    handlers = [thread for thread in threading.enumerate() if thread.name == WORKER and not thread.daemon]
    until = time.monotonic() + IDLE_THREAD_S
    for thread in handlers:
        thread.join(max(0.0, until - time.monotonic()))
    left = sum(thread.is_alive() for thread in handlers)
    if left:
        log.warning("%d handlers still run in threads and are left behind", left)
        logging.shutdown()
        os._exit(code)


def heed_signals(handler: Callable[[int, FrameType | None], object] | signal.Handlers = leave) -> None:
    """What SIGTERM and SIGINT do outside of the loop: by default they raise `KeyboardInterrupt`."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


async def _run(server: Server, config: Config, ready: Callable[[Listening], None]) -> None:
    async with memory_given_back(), signals_heeded(server.stop, partial(_reload, server, config)):
        await server.serve(ready=ready)


def _announce(listening: Listening, store: str) -> None:
    """The line that others wait for. Nobody may be reading it."""
    line = f"vixws ready ws={listening.ws} http={listening.http} metrics={listening.metrics or 'off'}"
    try:
        line += f" store={quote(store, safe=':/?&=%@+~,;!$()*[]')} pid={os.getpid()}"
        print(line if len(listening.all_ws) < 2 else f"{line} all={','.join(listening.all_ws)}", flush=True)
    except (OSError, ValueError) as exc:
        log.warning("nobody reads our stdout: %s", exc)
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - stays open until the end


def _failed(exc: Exception, running: bool) -> int:
    """Tells one line where that says it all, else the traceback; nothing that failed before listening is ours."""
    faults = faults_of(exc)
    if all(map(is_fault_of_caller, faults)):
        complain("vixws serve", faults[0])
        is_damage = isinstance(faults[0], StoreError) and faults[0].code == INTERNAL  # No fault of who started it.
        return FAILED if running or is_damage else USAGE
    log.critical("the server failed: %r", faults[0], exc_info=exc)
    return FAILED


def _need_loop(config: Config) -> None:
    """Raises: `CommandFailed` where the loop is not installed."""
    needed = "trio" if config.backend == "trio" else "uvloop" if config.uvloop else ""
    if needed and importlib.util.find_spec(needed) is None:
        raise CommandFailed(f"{needed} is not installed: expected pip install 'vixws[{needed}]'")


def _store(config: Config, open_store: Callable[[str], MessageStore]) -> MessageStore:
    """The store that the configuration names. Raises: `ConfigError`, which says where it is named."""
    try:
        return open_store(config.store)
    except LocalError as exc:
        got = "" if ", got " in str(exc) else f", got {show(config.store.split('@')[-1])}"  # No password on a screen.
        raise ConfigError(f"{config.place('store')}: {exc}{got}") from None


def _url_of(store: MessageStore) -> str:
    """How the ready line calls a store that the application brought along."""
    path = getattr(store, "path", None)
    if isinstance(path, str):
        return f"sqlite:///{path}"
    return "memory://" if store.durable == "memory" else type(store).__name__


def _reload(server: Server, config: Config) -> None:
    """Reads the certificate again, for new connections; keeps the old one where it cannot be used."""
    if server.tls is None or config.tls_cert is None:
        log.info("SIGHUP: nothing to reload, as TLS is off")
        return
    try:
        server_context(config)  # A bad file must not leave the live context half loaded.
        load_certificate(server.tls, config)
    except ConfigError as exc:
        log.error("SIGHUP: the old certificate stays: %s", exc)
    else:
        log.info("SIGHUP: read %s again", config.tls_cert)
