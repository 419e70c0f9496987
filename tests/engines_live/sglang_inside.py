"""A real SGLang's inside, as tests look at it, and requests with ids of theirs."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from llmtop.engines.core.requests import RequestTable
from llmtop.engines.introspection.engine_inside import EngineInside
from llmtop.engines.state.state_directory import StateDirectory
from tests.engines_live.engine import Engine
from tests.engines_live.scenario import NAME, PATIENT_S, seen

LONG = 900  # tokens of an answer that is not finished before the test is


class Answer:
    """A request with an id of ours, and its result. status: HTTP's."""

    def __init__(
        self,
        engine: Engine,
        ident: str,
        tokens: int = LONG,
        stream: bool = True,
        prompt: str = "tell me of",
    ) -> None:
        self.status, self.headers, self.body = 0, {}, ""  # type: ignore[var-annotated]
        asked = {"model": "small", "prompt": f"{prompt} {ident}", "max_tokens": tokens}
        content = json.dumps({**asked, "rid": ident, "stream": stream, "ignore_eos": True}).encode()
        self._request = urllib.request.Request(
            f"{engine.url}/v1/completions", content, {"Content-Type": "application/json"}
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            with urllib.request.urlopen(self._request, timeout=PATIENT_S) as answer:
                self.status, self.headers = answer.status, dict(answer.headers)
                self.body = answer.read().decode()
        except urllib.error.HTTPError as error:
            self.status, self.headers = error.code, dict(error.headers)
            self.body = error.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self.status, self.body = -1, repr(error)

    def ended(self) -> Answer:
        self._thread.join(300)
        assert not self._thread.is_alive()
        return self


@contextmanager
def opened(engine: Engine) -> Iterator[EngineInside]:
    """Its inside, by the socket that it has now: a restart may have moved it."""
    record = StateDirectory(engine.home.folder / "state" / "llmtop").load(NAME)
    assert record is not None and record.live_socket is not None
    found = EngineInside(record.live_socket, timeout_s=PATIENT_S)
    try:
        yield found
    finally:
        found.close()


def table(inside: EngineInside) -> RequestTable:
    return asyncio.run(inside.requests())


def states(inside: EngineInside) -> dict[str, str]:
    return {row.id: row.state for row in table(inside).rows}


def free_of_requests(engine: Engine, inside: EngineInside) -> None:
    """No request is left, and no token in the KV cache that nobody may evict."""
    seen(lambda: not states(inside))
    seen(lambda: engine.metric("sglang:num_used_tokens") == 0)
