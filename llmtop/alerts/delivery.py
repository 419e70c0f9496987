"""Delivers alerts: to a program without a shell, a webhook, the terminal.

Each has a time-out. A webhook is tried again a few times, later each time. What cannot be delivered
is said once and dropped; it never holds up the watch.
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
PAUSES_S = (1.0, 5.0, 15.0)  # before the second, third and last try
MOST_WAITING = 100  # deliveries that are under way; a broken webhook must not fill the memory
KILL_S = 2.0


class Post(Protocol):
    """Sends a body to a webhook and returns the HTTP status; raises OSError or TimeoutError."""

    async def __call__(self, url: str, body: bytes, timeout_s: float) -> int:
        """One try."""


class Delivery:
    """Delivers alerts. say: takes a line about what could not be delivered."""

    def __init__(
        self,
        post: Post,
        say: Callable[[str], None],
        *,
        environ: Mapping[str, str] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._post, self._say, self._sleep = post, say, sleep
        self._environ = dict(os.environ if environ is None else environ)
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, alert: Alert) -> None:
        """Begin to tell of an alert; returns at once."""
        rule = alert.rule
        for wanted, work in ((rule.command, self._run), (rule.webhook, self._send)):
            if not wanted:
                continue
            if len(self._tasks) >= MOST_WAITING:
                self._say(f"{rule.name}: not delivered, {MOST_WAITING} others are under way")
                continue
            task = asyncio.get_running_loop().create_task(work(alert))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self, patience_s: float = 5.0) -> None:
        """Give what is under way a little time, then drop it."""
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=patience_s)
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
            self._say(f"{alert.rule.name}: {name} cannot be run: {_why(error)}")
            return
        try:
            async with asyncio.timeout(COMMAND_S):
                await process.communicate(body)
        except TimeoutError:
            self._say(f"{alert.rule.name}: {name} did not end within {COMMAND_S:g} s")
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), KILL_S)
        if process.returncode:
            self._say(f"{alert.rule.name}: {name} ended with {process.returncode}")

    async def _send(self, alert: Alert) -> None:
        body = json.dumps(document(alert)).encode()
        said = ""
        for pause in (0.0, *PAUSES_S):
            if pause:
                await self._sleep(pause)
            try:
                status = await self._post(alert.rule.webhook, body, WEBHOOK_S)
            except (OSError, TimeoutError) as error:
                said = _why(error)
                continue
            if 200 <= status < 300:
                return
            said = f"HTTP {status}"
            if status not in (408, 425, 429) and status < 500:
                break  # another try would be answered in the same way
        # The address is not shown: it may hold a token.
        self._say(f"{alert.rule.name}: the webhook did not accept the alert: {said}")


def bell(rule: Rule, text: str) -> str:
    """What makes a terminal ring and, where it can, show a notice (OSC 9)."""
    return f"\x1b]9;{text}\x07\x07" if rule.bell else ""


def check_webhook(url: str) -> None:
    """UsageError for what is no http address. It is not repeated: it may hold a token."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        sound = False
    if not sound or "@" in parts.netloc:
        raise UsageError("the webhook is not an http or https address without a user name")


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return type(error).__name__
