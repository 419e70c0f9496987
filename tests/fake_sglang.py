"""Stand-ins for what llmtop's plugin finds inside SGLang: its scheduler and its hook registry."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

CAP = "pp_max_micro_batch_size"


class Scheduler:
    """SGLang's, as far as the plugin touches it: what it holds, and what it answers."""

    honest = True  # since 0.5.16; 0.5.12 says "updated" whatever it did

    def __init__(self, cap: int = 8, chunk: int | None = 1024, **more: Any) -> None:
        self.server_args = SimpleNamespace(tp_size=1, pp_size=1, dp_size=1)
        self.max_running_requests = cap
        self.chunked_prefill_size = chunk
        self.max_prefill_tokens = 16384
        self.page_size = 1
        self.truncation_align_size = None
        self.is_mixed_chunk = False
        self.dllm_config = None
        self.running_batch = SimpleNamespace(reqs=[], batch_is_full=False)
        self.waiting_queue: list[int] = []
        self.ps = SimpleNamespace(tp_rank=0, pp_rank=0)
        self.args: dict[str, Any] = {CAP: cap}
        for name, value in more.items():
            holder = self if hasattr(self, name) else self.server_args
            setattr(holder, name, value)

    def process_input_requests(self, requests: list[Any]) -> list[Any]:
        return requests

    def get_internal_state(self, request: Any) -> Any:
        return SimpleNamespace(internal_state=dict(self.args))

    def set_internal_state(self, request: Any) -> Any:
        fine = all(
            key == CAP and 1 <= value <= self.max_running_requests
            for key, value in request.server_args.items()
        )
        if fine:
            self.args.update(request.server_args)
        return SimpleNamespace(updated=fine or not self.honest)


class Scheduler0512(Scheduler):
    """0.5.12: refuses and says it did not."""

    honest = False


class Registry:
    """SGLang's hooks, as hook_registry.py applies them: BEFORE, AFTER and AROUND on methods."""

    def __init__(self) -> None:
        self.hooks: list[tuple[str, Callable[..., Any], str]] = []

    def register(self, target: str, hook: Callable[..., Any], hook_type: str) -> None:
        self.hooks.append((target.rpartition(".")[2], hook, hook_type))

    def apply(self, cls: type) -> type:
        made: dict[str, Any] = {}
        for name, hook, hook_type in self.hooks:
            if hasattr(cls, name):  # others are of other classes
                made[name] = self._wrapped(made.get(name, getattr(cls, name)), hook, hook_type)
        return type("Hooked", (cls,), made)

    @staticmethod
    def _wrapped(original: Any, hook: Callable[..., Any], hook_type: str) -> Any:
        def before(*args: Any, **named: Any) -> Any:
            changed = hook(*args, **named)
            if changed is not None:
                args, named = changed
            return original(*args, **named)

        def after(*args: Any, **named: Any) -> Any:
            result = original(*args, **named)
            changed = hook(result, *args, **named)
            return result if changed is None else changed

        def around(*args: Any, **named: Any) -> Any:
            return hook(original, *args, **named)

        return {"before": before, "after": after, "around": around}[hook_type]


class Launch:
    """A scheduler under the plugin, and what is asked of it over the socket's own answer."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.loop()

    def loop(self) -> None:
        """One round of the event loop."""
        assert self.scheduler.process_input_requests(["r"]) == ["r"]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        server = sys.modules["llmtop_live.socket_server"]
        told: dict[str, Any] = server.answer(
            self.scheduler.llmtop_control.tunables,
            json.dumps(request).encode(),
            logging.getLogger("q"),
            self.scheduler.llmtop_inside.introspection,
        )
        assert told["ok"], told
        return told

    def get(self) -> dict[str, Any]:
        return self.ask({"op": "get"})

    def value(self, name: str) -> int:
        value: int = self.get()["options"][name]["value"]
        return value

    def put(self, *, evict: bool = False, **changes: Any) -> list[dict[str, Any]]:
        """Hand changes in between two rounds; they wait for the next."""
        request = {"op": "set", "changes": changes, "evict": evict, "by": "ann", "wait_s": 0}
        told: list[dict[str, Any]] = self.ask(request)["changes"]
        return told

    def last(self) -> dict[str, Any]:
        told: dict[str, Any] = self.get()["history"][-1]
        return told
