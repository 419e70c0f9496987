"""The HTTP server of the simulator, with vLLM's routes."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import random
import time
import traceback
from collections.abc import Awaitable, Callable

from aiohttp import web

from llmtop import __version__
from llmtop.engines.simulated.simulator.http import frames, protocol
from llmtop.engines.simulated.simulator.http.frames import Frames
from llmtop.engines.simulated.simulator.http.metrics import Metrics
from llmtop.engines.simulated.simulator.http.misbehaviour import Misbehaviour, impossible
from llmtop.engines.simulated.simulator.http.protocol import (
    ApiError,
    ChatBody,
    CheckedRequest,
    CompletionBody,
    Rules,
)
from llmtop.engines.simulated.simulator.http.ranks import Ranks
from llmtop.engines.simulated.simulator.http.streams import TokenCounter, TokenStream
from llmtop.engines.simulated.simulator.model import exposition
from llmtop.engines.simulated.simulator.model.log import log
from llmtop.engines.simulated.simulator.model.request import Request

ID_LIMIT = 200  # characters of a client's own request id
BODY_LIMIT = 32 * 1024 * 1024  # bytes; a prompt of 131,072 token ids is 1 MiB

RETRY_AFTER_S = 1  # a full queue normally has room again within seconds

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """The routes and their handlers.

    rng: for lengths and texts of answers. misbehaviours: only those of /metrics are used here.
    idle: set while no answer is in progress. api_key: required under /v1, as in vLLM; "" for none.
    """

    def __init__(
        self,
        ranks: Ranks,
        metrics: Metrics,
        rules: Rules,
        rng: random.Random,
        misbehaviours: dict[str, Misbehaviour],
        api_key: str = "",
    ) -> None:
        self.idle = asyncio.Event()
        self.idle.set()
        self._open = 0
        self._ranks = ranks
        self._metrics = metrics
        self._rules = rules
        self._rng = rng
        self._misbehaviours = misbehaviours
        self._api_key = api_key
        self._began = time.monotonic()
        self._frozen: str | None = None
        self._serial = itertools.count(1)

    def application(self) -> web.Application:
        """The application to serve."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(client_max_size=BODY_LIMIT, middlewares=[guard])
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/version", self._version),
                web.get("/metrics", self._exposition),
                web.get("/v1/models", self._models),
                web.post("/v1/completions", self._completions),
                web.post("/v1/chat/completions", self._chat),
            ]
        )
        return app

    async def _guard(self, http: web.Request, handler: Handler) -> web.StreamResponse:
        """Count every response, and return errors in vLLM's format."""
        response: web.StreamResponse
        try:
            self._check_key(http)
            response = await handler(http)
        except ApiError as error:
            response = _refusal(error)
        except web.HTTPRequestEntityTooLarge:
            response = _refusal(ApiError(f"The request is larger than {BODY_LIMIT} bytes", 413))
        except web.HTTPException as refusal:  # no such route or method
            headers = {"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else None
            body = {"detail": refusal.reason}
            response = web.json_response(body, status=refusal.status, headers=headers)
        except Exception:  # an error in the simulator: the engine continues
            log(traceback.format_exc(), "ERROR")
            response = _refusal(ApiError("Internal error", 500, "InternalServerError"))
        resource = http.match_info.route.resource
        route = resource.canonical if resource else "none"
        key = (route, http.method, f"{response.status // 100}xx")
        counts = self._metrics.http_requests
        counts[key] = counts.get(key, 0) + 1
        return response

    def _check_key(self, http: web.Request) -> None:
        given = http.headers.get("Authorization", "").encode(errors="replace")
        wanted = f"Bearer {self._api_key}".encode()
        guarded = self._api_key and http.path.startswith("/v1")
        if guarded and not hmac.compare_digest(given, wanted):
            raise ApiError("Unauthorized", 401, "AuthenticationError")

    async def _health(self, http: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, http: web.Request) -> web.Response:
        about = {"version": __version__, "engine": "llmtop-simulator", "simulated": True}
        return web.json_response(about)

    async def _exposition(self, http: web.Request) -> web.Response:
        if self._misbehaves("metrics-500"):
            raise ApiError("Internal error (--misbehave)", 500, "InternalServerError")
        text = self._frozen or self._metrics.page()
        if self._misbehaves("metrics-frozen"):
            self._frozen = text
        if self._misbehaves("metrics-nonsense"):
            text = impossible(text)
        headers = {"Content-Type": exposition.CONTENT_TYPE}
        return web.Response(body=text.encode(), headers=headers)

    async def _models(self, http: web.Request) -> web.Response:
        model = {
            "id": self._rules.served_name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "llmtop-simulator",
            "root": self._rules.served_name,
            "parent": None,
            "max_model_len": self._rules.max_model_len,
        }
        return web.json_response({"object": "list", "data": [model]})

    async def _completions(self, http: web.Request) -> web.StreamResponse:
        body = protocol.decode(await http.read(), CompletionBody)
        checked = protocol.check_completion(body, self._rules, self._rng)
        return await self._answer(http, checked, chat=False)

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        body = protocol.decode(await http.read(), ChatBody)
        checked = protocol.check_chat(body, self._rules, self._rng)
        return await self._answer(http, checked, chat=True)

    async def _answer(
        self, http: web.Request, checked: CheckedRequest, *, chat: bool
    ) -> web.StreamResponse:
        if self._ranks.refuse():
            text = "The queue is full (max_queued_requests)."
            raise ApiError(text, 503, "ServiceUnavailableError", retry_after_s=RETRY_AFTER_S)
        request = Request(
            next(self._serial),
            checked.prompt,
            checked.target,
            checked.output,
            checked.reason,
            checked.affinity,
        )
        request.ident = self._ident(http, request, chat)
        self._open += 1
        self.idle.clear()
        try:  # a client that disconnects cancels this coroutine and its request
            if checked.stream:
                return await self._stream(http, checked, request, chat)
            return await self._whole(checked, request, chat)
        finally:
            self._open -= 1
            if not self._open:
                self.idle.set()
            self._ranks.cancel(request)

    async def _whole(self, checked: CheckedRequest, request: Request, chat: bool) -> web.Response:
        counter = TokenCounter()
        self._ranks.submit(request, checked.max_tokens, counter)
        await counter.done.wait()
        if counter.aborted and not counter.tokens:
            raise _aborted()
        ident, text = request.ident, checked.output.text(0, counter.tokens)
        reason = "abort" if counter.aborted else checked.reason
        used = frames.usage(len(checked.prompt), counter.tokens, request.hits or 0)
        name = self._rules.served_name
        answer = frames.whole(ident, int(time.time()), name, text, reason, used, chat)
        return web.json_response(answer)

    async def _stream(
        self, http: web.Request, checked: CheckedRequest, request: Request, chat: bool
    ) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers=headers)
        framed = http.version >= (1, 1)
        if framed:
            response.enable_chunked_encoding()
        with contextlib.suppress(ConnectionError):
            await response.prepare(http)
        transport = http.transport
        if transport is None:  # the client disconnected before the headers were sent
            return response
        events = Frames(
            request.ident,
            int(time.time()),
            self._rules.served_name,
            checked.output,
            chat=chat,
            framed=framed,
        )
        stream = TokenStream(transport, events)
        self._ranks.submit(request, checked.max_tokens, stream)
        await stream.done.wait()
        if stream.aborted and not stream.tokens:
            with contextlib.suppress(ConnectionError):
                await response.write_eof(events.failed(_aborted().body()))
            return response
        reason = "abort" if stream.aborted else checked.reason
        used = None
        if checked.include_usage:
            used = frames.usage(len(checked.prompt), stream.tokens, request.hits or 0)
        rest = stream.tokens - stream.sent
        with contextlib.suppress(ConnectionError):  # the client disconnected just before the end
            await response.write_eof(events.last(stream.sent, rest, reason, used))
        return response

    def _ident(self, http: web.Request, request: Request, chat: bool) -> str:
        """The id of a request: as in vLLM, with the client's own id from the header."""
        given = http.headers.get("X-Request-Id", "")[:ID_LIMIT]
        named = given if given.isprintable() else ""
        return f"{'chatcmpl' if chat else 'cmpl'}-{named or f'simulated-{request.serial}'}"

    def _misbehaves(self, kind: str) -> bool:
        fault = self._misbehaviours.get(kind)
        return fault is not None and time.monotonic() - self._began >= fault.seconds


def _aborted() -> ApiError:
    text = "The request was aborted by an operator before its first token"
    return ApiError(text, 503, "ServiceUnavailableError")


def _refusal(error: ApiError) -> web.Response:
    wait_s = error.retry_after_s
    headers = None if wait_s is None else {"Retry-After": str(wait_s)}
    return web.json_response(error.body(), status=error.status, headers=headers)
