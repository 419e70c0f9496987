"""Checks values that have the right type: names, shapes, durations, and secrets in plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from llmtop import LlmtopError
from llmtop.alerts import delivery, expression
from llmtop.config import keymap
from llmtop.config.faults import Fault
from llmtop.config.lines import Key
from llmtop.config.tables import AlertTable, ConfigTable, EngineTable, PromptsTable, SloTable
from llmtop.engines.host.redaction import is_secret_name, redact
from llmtop.engines.registry import ADAPTERS, adapter_named
from llmtop.engines.state.state_directory import check_name
from llmtop.loadgen.workload import prompts as making
from llmtop.loadgen.workload import shape
from llmtop.loadgen.workload.lengths import parse_lengths, parse_pauses
from llmtop.loadgen.workload.plan import Prompts
from llmtop.loadgen.workload.trace import unread
from llmtop.values import replace

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


def faults(table: ConfigTable) -> Iterator[Fault]:
    """Yield every fault of a table whose values have the right types."""
    for section, names in (
        ("shapes", table.shapes),
        ("prompts", table.prompts),
        ("slos", table.slos),
        ("alerts", table.alerts),
    ):
        for name in names:
            if not _LABEL.fullmatch(name):
                words = f"{name!r} is not a valid name"
                yield Fault((section, name), words, "use letters, digits, dots, dashes")
    for name, entry in table.shapes.items():
        text = entry if isinstance(entry, str) else entry.shape
        key: Key = ("shapes", name) if isinstance(entry, str) else ("shapes", name, "shape")
        try:
            parsed = shape.parse(text, unread)
            if parsed.is_recorded and not isinstance(entry, str) and entry.loop == "closed":
                yield Fault((*key[:2], "loop"), 'a trace needs loop = "open"')
        except LlmtopError as error:
            yield Fault(key, error.message, error.hint)
    for name, prompts in table.prompts.items():
        yield from _prompts(("prompts", name), prompts)
    for name, slo in table.slos.items():
        yield from _slo(("slos", name), slo)
    for name, alert in table.alerts.items():
        yield from _alert(("alerts", name), alert)
    for name, words, hint in keymap.key_faults(table.keys):
        yield Fault(("keys", name), words, hint)
    for name, engine in table.engines.items():
        yield from _engine(("engines", name), name, engine, table)


def _alert(key: Key, table: AlertTable) -> Iterator[Fault]:
    try:
        expression.parse(table.when)
    except LlmtopError as error:
        yield Fault((*key, "when"), error.message, error.hint)
    try:
        if table.webhook:
            delivery.check_webhook(table.webhook)
    except LlmtopError as error:
        yield Fault((*key, "webhook"), error.message, error.hint)
    if table.webhook and table.webhook_from:
        yield Fault((*key, "webhook_from"), "webhook is already set; set only one of the two")
    if table.webhook_from and not _VARIABLE.fullmatch(table.webhook_from):
        yield Fault((*key, "webhook_from"), "this is not the name of an environment variable")
    if table.command and not table.command[0].strip():
        yield Fault((*key, "command"), "the first element is the program; it is empty")


def _prompts(key: Key, table: PromptsTable) -> Iterator[Fault]:
    found: dict[str, Any] = {}
    for name, read in (
        ("prompt_tokens", parse_lengths),
        ("output_tokens", parse_lengths),
        ("think", parse_pauses),
    ):
        try:
            value: Any = read(getattr(table, name))
        except LlmtopError as error:
            words = error.message.rpartition(" is not ")[2]
            yield Fault((*key, name), f"this is not {words}", error.hint)
            continue
        try:
            field = "think_s" if name == "think" else name
            making.check(replace(Prompts(), **{field: value}))
            found[field] = value
        except LlmtopError as error:
            yield Fault((*key, name), error.message, error.hint)
    if len(found) == 3:
        try:
            making.check(
                Prompts(
                    **found,
                    repetitive=table.repetitive,
                    shared_prefix_tokens=table.shared_prefix_tokens,
                    shared_prefix_share=table.shared_prefix_share,
                    dataset=table.dataset,
                )
            )
        except LlmtopError as error:
            yield Fault(key, error.message, error.hint)


def _slo(key: Key, table: SloTable) -> Iterator[Fault]:
    limits = {name: getattr(table, name) for name in table.__struct_fields__}
    if not any(limits.values()):
        yield Fault(key, "it sets no limit", 'for example: ttft = "500ms"')
    for name, text in limits.items():
        try:
            if text:
                shape.parse_duration(text)
        except LlmtopError:
            words = "this is not a duration above 0"
            yield Fault((*key, name), words, "write 500ms, 20s or 2m")


def _engine(key: Key, name: str, table: EngineTable, config: ConfigTable) -> Iterator[Fault]:
    try:
        check_name(name)
    except LlmtopError as error:
        yield Fault(key, error.message, error.hint)
    if name in ADAPTERS:
        words = "this is the name of a kind of engine"
        yield Fault(key, words, f"choose another name, such as {name}-1")
    try:
        adapter = adapter_named(table.engine)
    except LlmtopError as error:
        yield Fault((*key, "engine"), error.message, error.hint)
    else:
        if not table.model and not adapter.default_model:
            yield Fault(key, f"the key model is missing: {adapter.kind} needs one")
        if table.api_key_file and not adapter.api_key_variable:
            yield Fault(
                (*key, "api_key_file"),
                f"{adapter.title} cannot get a key without showing it to other users",
                "omit it, and set LLMTOP_API_KEY to the key that llmtop sends",
            )
    if table.python and table.bin:
        yield Fault((*key, "bin"), "python is already set; set only one of the two")
    if len(set(table.gpus)) != len(table.gpus):
        yield Fault((*key, "gpus"), "a GPU is in the list twice")
    if table.prompts and table.prompts not in config.prompts:
        words = f"there is no [prompts.{table.prompts}]"
        known = ", ".join(config.prompts)
        yield Fault((*key, "prompts"), words, f"there are: {known}" if known else "")
    yield from _secret_flags(key, table)
    yield from _environment(key, table)


def _secret_flags(key: Key, table: EngineTable) -> Iterator[Fault]:
    hint = "use api_key_file, or a variable in env_from: every user can read the flags of a process"
    for index, (arg, shown) in enumerate(zip(table.args, redact(table.args), strict=True)):
        if arg != shown:
            yield Fault((*key, "args", index), "a secret does not belong in this file", hint)


def _environment(key: Key, table: EngineTable) -> Iterator[Fault]:
    places: list[tuple[Key, str]] = [((*key, "env", name), name) for name in table.env]
    places += [((*key, "env_from", index), name) for index, name in enumerate(table.env_from)]
    for where, name in places:
        if not _VARIABLE.fullmatch(name):
            yield Fault(where, "this is not the name of an environment variable")
        elif name.startswith("LLMTOP_"):
            yield Fault(where, "variables that begin with LLMTOP_ are reserved for llmtop")
        elif name == "CUDA_VISIBLE_DEVICES" and table.gpus:
            yield Fault(where, "the GPUs are set twice", "omit gpus or this variable")
    for name, value in table.env.items():
        if is_secret_name(name) or redact((value,)) != (value,):
            words = "a secret does not belong in this file"
            yield Fault((*key, "env", name), words, f'write env_from = ["{name}"] and export it')
        if "\0" in value:
            yield Fault((*key, "env", name), "a variable cannot hold a NUL character")
        if name in table.env_from:
            yield Fault((*key, "env", name), "it is also in env_from; set it in one place")


def limits(table: SloTable) -> Mapping[str, float]:
    """The limits of a checked table in seconds, by name (ttft, tpot, itl, e2e)."""
    texts = {name: getattr(table, name) for name in table.__struct_fields__}
    return {name: shape.parse_duration(text) for name, text in texts.items() if text}
