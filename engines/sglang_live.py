"""SGLang's own live options over HTTP, for engines that our plugin is not in.

``POST /set_internal_state`` takes a few keys while the engine runs, and hands them to all of its
ranks; ``GET /server_info`` tells what is in force. Works with whatever is at a URL, with an API key
where the engine wants one. Source: SGLang 0.5.12 to 0.5.23, entrypoints/http_server.py and
managers/scheduler.py, from 0.5.22 scheduler_components/internal_state.py.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from llmtop.engines.live_answer import LiveError, LiveOption, LiveState, printable, understood
from llmtop.engines.loopback import is_loopback
from llmtop.engines.options import Applies, Change, Outcome
from llmtop.values import replace

TIMEOUT_S = 5.0  # an answer waits for the end of a batch, and a long prefill takes seconds
ANSWER_LIMIT = 4 * 1024 * 1024  # bytes; 14 KB for each data-parallel rank in 0.5.23
HISTORY = 50

CAP = "max_running_requests"
# Limits admission also without pipeline parallelism, and is the only one of ours that every
# version takes. The others are sent as they are, for the version that takes them.
CAP_KEY = "pp_max_micro_batch_size"
OTHERS = ("chunked_prefill_size", "max_prefill_tokens")


class Exchange(Protocol):
    """One HTTP request. Raises LiveError when no answer comes."""

    async def __call__(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> tuple[int, bytes]:
        """The status and the body of the answer."""

    async def close(self) -> None:
        """Give the connections back."""


class StockLive:
    """The options of one SGLang engine, as LiveClient offers them. Every failure is a LiveError.

    What was changed, and by whom, is remembered here alone: the engine keeps no such list.
    """

    def __init__(
        self,
        url: str,
        api_key: str = "",
        exchange: Exchange | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._exchange = exchange if exchange is not None else HttpExchange(url, api_key)
        self._clock = clock
        self._now = now
        self._history: deque[Change] = deque(maxlen=HISTORY)
        self._taken: set[str] = set()  # of OTHERS, those that this engine took

    async def get(self) -> LiveState:
        """What the engine can change, and what is in force."""
        info = await self._info()
        return understood(lambda told: self._state(told), info)

    async def set(
        self,
        changes: Mapping[str, int],
        *,
        evict: bool = False,
        by: str = "",
        wait_s: float = 1.0,
    ) -> tuple[Change, ...]:
        """Ask for changes one after the other; one ``Change`` for each, in the order given.

        wait_s is for the other clients: SGLang answers once its scheduler has taken the value.
        """
        if not changes:
            return ()
        before = understood(_Info, await self._info())
        found = []
        for name, to in changes.items():
            asked, sent = self._now(), self._clock()
            outcome, reason = await self._one(before, name, to, evict)
            took_ms = (self._clock() - sent) * 1e3
            was = before.value(name)
            change = Change(name, was, to, outcome, reason, took_ms, 0, by, asked)
            found.append(change)
            if outcome is not Outcome.REFUSED:
                self._history.append(replace(change, ack_ms=None))
        return tuple(found)

    async def close(self) -> None:
        """Give the connections back."""
        await self._exchange.close()

    def _state(self, told: Mapping[str, Any]) -> LiveState:
        info = _Info(told)
        names = (CAP, *(name for name in OTHERS if name in self._taken | info.offered))
        options = {name: option for name in names if (option := info.option(name)) is not None}
        return LiveState(
            engine="sglang",
            version=info.version,
            pid=None,
            options=options,
            history=tuple(self._history),
        )

    async def _one(
        self, before: _Info, name: str, to: int, evict: bool
    ) -> tuple[Outcome, str | None]:
        option = before.option(name)
        if name != CAP and name not in OTHERS:
            return Outcome.REFUSED, f"not a live option of this engine; it has: {CAP}"
        if option is None:
            return Outcome.REFUSED, f"the engine does not tell its {name}"
        if evict:
            return Outcome.REFUSED, "cannot evict: SGLang can put back all running requests or none"
        if not option.minimum <= to <= option.maximum:
            return Outcome.REFUSED, f"must lie between {option.minimum} and {option.maximum}"
        if name == CAP and to % before.stages:
            return Outcome.REFUSED, f"must be a multiple of the {before.stages} pipeline stages"
        key, value = (CAP_KEY, to // before.stages) if name == CAP else (name, to)
        status, body = await self._exchange(
            "POST", "/set_internal_state", {"server_args": {key: value}}
        )
        _check(status, "/set_internal_state")
        said = understood(_list_of_bool, body)
        # Its word alone is not enough: 0.5.12 says true to keys that it refuses.
        after = understood(_Info, await self._info())
        if all(said) and after.values(name) == {to}:
            if name != CAP:
                self._taken.add(name)
            return Outcome.APPLIED, None
        if name != CAP and name not in before.offered:
            return Outcome.REFUSED, f"SGLang {before.version} does not change this while it runs"
        return Outcome.REFUSED, "SGLang refused it; its log says why"

    async def _info(self) -> Mapping[str, Any]:
        status, body = await self._exchange("GET", "/server_info", None)
        _check(status, "/server_info")
        return understood(_object, body)


class _Info:
    """What ``/server_info`` tells, as far as it concerns us. Values are for each rank."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.version = printable(told.get("version", ""))
        self._launch = told
        states = told["internal_states"]
        if not isinstance(states, list) or not states or not isinstance(states[0], dict):
            raise ValueError("no internal states")
        self._states = [state for state in states if isinstance(state, dict)]
        self.ranks = len(states)
        self.stages = _count(told.get("pp_size")) or 1
        # Our plugin says so, where it takes them on every rank (engines/plugins/sglang).
        offers = self._states[0].get("llmtop_live")
        self.offered = {name for name in OTHERS if isinstance(offers, list) and name in offers}

    def values(self, name: str) -> set[int]:
        """In force, over the ranks that tell: one value, unless somebody changed a part of them."""
        key, scale = (CAP_KEY, self.stages) if name == CAP else (name, 1)
        told = (_count(state.get(key)) for state in self._states)
        return {value * scale for value in told if value is not None}

    def value(self, name: str) -> int | None:
        """In force, the lowest where ranks differ; None when none tells."""
        return min(self.values(name), default=None)

    def option(self, name: str) -> LiveOption | None:
        """The option as it stands; None when its value or its limit is not told."""
        value = self.value(name)
        if value is None:
            return None
        if name == CAP:
            most = _count(self._states[0].get("effective_max_running_requests_per_dp"))
            if most is None:
                return None
            maximum = most // self.stages * self.stages
            launch = (_count(self._launch.get(CAP_KEY)) or most // self.stages) * self.stages
            least, applies = self.stages, Applies.DRAINS
            note = "those above a lower limit finish; a raised one waits until a request has left"
        else:
            launch = _count(self._launch.get(name)) or value
            least, maximum, applies = 1, launch, Applies.LIVE_UP_TO_LAUNCH
            note = ""
        if self.ranks > 1:
            each = f"for each of {self.ranks} data-parallel ranks"
            note = f"{note}; {each}" if note else each
        return LiveOption(value, launch, least, maximum, applies, note=note)


class HttpExchange:
    """The real ``Exchange``, with the server at ``url``. api_key: never shown."""

    def __init__(self, url: str, api_key: str = "", timeout_s: float = TIMEOUT_S) -> None:
        import httpx

        host = httpx.URL(url).host
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=timeout_s,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            trust_env=not is_loopback(host),  # a proxy cannot reach our own ports
        )

    async def __call__(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> tuple[int, bytes]:
        """Send one request and read a bounded answer."""
        import httpx

        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream(method, path, json=body) as response,
            ):
                received = bytearray()
                async for chunk in response.aiter_bytes():
                    received += chunk
                    if len(received) > ANSWER_LIMIT:
                        raise LiveError(f"the answer to {path} is out of all proportion")
                return response.status_code, bytes(received)
        except (TimeoutError, httpx.TimeoutException):
            raise LiveError(
                f"the engine did not answer {path} within {self._timeout_s:g} s",
                "it may be paused, stuck, or busy with one long prefill",
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise LiveError(
                f"the engine could not be asked for {path} ({type(error).__name__})",
                "is it running, and is this its URL?",
            ) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _check(status: int, path: str) -> None:
    if status in (401, 403):
        raise LiveError(
            f"the engine wants a key for {path} (HTTP {status})",
            "give its admin API key where it has one, else its API key",
        )
    if status != 200:
        raise LiveError(f"the engine answered {path} with HTTP {status}", "see the engine's log")


def _object(body: bytes) -> Mapping[str, Any]:
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _list_of_bool(body: bytes) -> list[bool]:
    found = json.loads(body)
    if not isinstance(found, list) or not found or not all(isinstance(x, bool) for x in found):
        raise ValueError("not a list of true and false")
    return found


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
