"""Delivers alerts to a program (without a shell), to a webhook, and to the terminal.

Each delivery has a time limit. A webhook is retried a few times with growing pauses. A failed
delivery is reported once and dropped. It never blocks the watch.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol
from urllib.parse import urlsplit

from llmtop import UsageError
from llmtop.alerts.rules import Alert, Rule
from llmtop.alerts.words import document, sentence

COMMAND_S = 30.0
WEBHOOK_S = 10.0
PAUSES_S = (1.0, 5.0, 15.0)  # before the second, the third and the last attempt
MOST_WAITING = 100  # deliveries in progress; limits the memory that a broken webhook can take
KILL_S = 2.0  # wait after SIGKILL


class Post(Protocol):
    """Sends a body to a webhook and returns the HTTP status. Raises OSError or TimeoutError."""

    async def __call__(self, url: str, body: bytes, timeout_s: float) -> int:
        """Send once."""


class Delivery:
    """Delivers alerts. report: called with one line of text for each failed delivery.

    environ: of commands; None: that of this process. sleep: waits some seconds.
    """

    def __init__(
        self,
        post: Post,
        report: Callable[[str], None],
        *,
        environ: Mapping[str, str] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._post, self._report, self._sleep = post, report, sleep
        self._environ = dict(os.environ if environ is None else environ)
        self._tasks: set[asyncio.Task[None]] = set()

    def deliver(self, alert: Alert) -> None:
        """Start the delivery of an alert and return at once."""
        rule = alert.rule
        for wanted, work in ((rule.command, self._run), (rule.webhook, self._send)):
            if not wanted:
                continue
            if len(self._tasks) >= MOST_WAITING:
                self._report(f"{rule.name}: not delivered, {MOST_WAITING} others are in progress")
                continue
            task = asyncio.get_running_loop().create_task(work(alert))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self, timeout_s: float = 5.0) -> None:
        """Wait up to ``timeout_s`` for deliveries in progress, then cancel them."""
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, alert: Alert) -> None:
        body = json.dumps(document(alert)).encode()
        name = alert.rule.command[0]
        environ = {
            **{key: text for key, text in self._environ.items() if key != "NOTIFY_SOCKET"},
            "LLMTOP_ALERT_RULE": alert.rule.name,
            "LLMTOP_ALERT_ENGINE": alert.engine,
            "LLMTOP_ALERT_STATUS": "begins" if alert.begins else "ends",
            "LLMTOP_ALERT_TEXT": sentence(alert),
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *alert.rule.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env=environ,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self._report(f"{alert.rule.name}: {name} cannot be run: {_reason(error)}")
            return
        try:
            async with asyncio.timeout(COMMAND_S):
                await process.communicate(body)
        except TimeoutError:
            self._report(f"{alert.rule.name}: {name} did not end within {COMMAND_S:g} s")
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), KILL_S)
        if process.returncode:
            self._report(f"{alert.rule.name}: {name} ended with {process.returncode}")

    async def _send(self, alert: Alert) -> None:
        body = json.dumps(document(alert)).encode()
        reason = ""
        for pause in (0.0, *PAUSES_S):
            if pause:
                await self._sleep(pause)
            try:
                status = await self._post(alert.rule.webhook, body, WEBHOOK_S)
            except (OSError, TimeoutError) as error:
                reason = _reason(error)
                continue
            if 200 <= status < 300:
                return
            reason = f"HTTP {status}"
            if status not in (408, 425, 429) and status < 500:
                break  # a retry would get the same answer
        # The URL is not shown: it may contain a token.
        self._report(f"{alert.rule.name}: the webhook did not accept the alert: {reason}")


def bell(rule: Rule, text: str) -> str:
    """The sequence that rings a terminal and shows a notice (OSC 9), or "" without a bell."""
    return f"\x1b]9;{text}\x07\x07" if rule.bell else ""


def check_webhook(url: str) -> None:
    """Raise UsageError for an invalid URL. The message does not repeat it: it may hold a token."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        sound = False
    if not sound or "@" in parts.netloc:
        raise UsageError("the webhook must be an http or https URL without a user name")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return type(error).__name__
