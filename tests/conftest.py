"""What all tests share: the three loops of the adapter tests, and a skip that counts as a failure in CI."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Generator
from typing import Any

import pytest

from vixws_anyio.cli.loglines import ToStderr

BACKENDS = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "asyncio+uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So it is in what a script runs behind itself, and in every program that it starts: tests interrupt some.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", params=list(BACKENDS), ids=str)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Every adapter test runs on each of these."""
    return BACKENDS[request.param]


@pytest.fixture(autouse=True)
def signals_as_they_were() -> Generator[None]:
    """A command that ran in the tests' own process ignores signals at its end, as would every program started next."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Generator[None]:
    """Commands that a test runs in its own process set levels, and send logs to stderr: not beyond the test."""
    loggers = [
        logging.root,
        *(one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)),
    ]
    before = [(logger, logger.level) for logger in loggers]
    yield
    for handler in [one for one in logging.root.handlers if isinstance(one, ToStderr)]:
        logging.root.removeHandler(handler)
    known = {logger for logger, _ in before}
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger) and logger not in known:
            logger.setLevel(logging.NOTSET)
    for logger, level in before:
        logger.setLevel(level)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report
