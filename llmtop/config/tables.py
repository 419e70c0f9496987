"""The tables of ``llmtop.toml``: names, types and bounds of their keys.

The JSON schema for editors is generated from these classes, with their descriptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Port = Annotated[int, Meta(ge=0, le=65535)]
Gpu = Annotated[int, Meta(ge=0, le=1023)]


class EngineTable(Struct, frozen=True, forbid_unknown_fields=True):
    """An engine that `llmtop up` starts, under the name of its table."""

    engine: Annotated[str, Meta(description="Kind of engine, as in `llmtop run KIND`.")]
    model: Annotated[
        str, Meta(description="Path, or name on a hub; optional if the kind has a default.")
    ] = ""
    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[
        Port, Meta(description="0: the default port of the kind, or the next free one.")
    ] = 0
    gpus: Annotated[
        tuple[Gpu, ...],
        Meta(description="Indices of the GPUs that the engine may use; empty: all."),
    ] = ()
    python: Annotated[str, Meta(description="Python interpreter that runs the engine.")] = ""
    bin: Annotated[str, Meta(description="Executable of the engine.")] = ""
    args: Annotated[
        tuple[str, ...], Meta(description="Flags that are passed to the engine unchanged.")
    ] = ()
    env: Annotated[
        Mapping[str, str], Meta(description="Environment variables. Never a secret: see env_from.")
    ] = field(default_factory=dict)
    env_from: Annotated[
        tuple[str, ...],
        Meta(description="Variables to copy from the environment of llmtop; they must be set."),
    ] = ()
    api_key_file: Annotated[
        str, Meta(description="File with the API key that clients of the engine must send.")
    ] = ""
    prompts: Annotated[str, Meta(description="Default [prompts.NAME] for load on this engine.")] = (
        ""
    )


class PromptsTable(Struct, frozen=True, forbid_unknown_fields=True):
    """The requests of a load: lengths, content and turns.

    A length is a number of tokens, a range such as "448..576", or
    "lognormal 512 cv 0.8 max 4096".
    """

    prompt_tokens: int | str = 128
    output_tokens: int | str = 128
    shared_prefix_tokens: Annotated[
        int, Meta(ge=0, description="Length of the common prompt prefix, in tokens.")
    ] = 0
    shared_prefix_share: Annotated[
        float, Meta(ge=0, le=1, description="Share of requests with that prefix.")
    ] = 0.0
    repetitive: Annotated[
        bool, Meta(description="Repetitive prompts, which n-gram speculation predicts well.")
    ] = False
    temperature: Annotated[float, Meta(ge=0, le=2)] = 1.0
    text: Annotated[
        bool, Meta(description="Send words instead of token ids; lengths are then approximate.")
    ] = False
    ignore_eos: Annotated[
        bool, Meta(description="Answers have exactly the requested length; false: at most that.")
    ] = True
    json_schema: Annotated[
        str, Meta(description='Answers follow the JSON schema in this file, or "builtin".')
    ] = ""
    dataset: Annotated[
        str, Meta(description="Read prompts from this file: ShareGPT JSON, or JSON lines.")
    ] = ""
    chat: Annotated[bool, Meta(description="Send chats.")] = False
    turns: Annotated[
        int, Meta(ge=1, le=1000, description="Turns per conversation; more than one sends chats.")
    ] = 1
    think: Annotated[
        str, Meta(description='Pause before the next turn: "2s", "1s..5s", "lognormal 5s cv 1".')
    ] = "0"


class ShapeTable(Struct, frozen=True, forbid_unknown_fields=True):
    """Load over time, and whether its levels are streams or requests per second."""

    shape: Annotated[str, Meta(description="The shape, as `--shape` takes it.")]
    loop: Annotated[
        Literal["closed", "open"],
        Meta(description="Levels are streams (closed) or requests per second (open)."),
    ] = "closed"
    arrival: Annotated[
        Literal["constant", "poisson", "gamma"],
        Meta(description="Distribution of arrivals in the open loop."),
    ] = "poisson"
    burstiness: Annotated[
        float, Meta(ge=0.01, description="Shape of gamma arrivals: 1 is Poisson, less is burstier.")
    ] = 1.0


class SloTable(Struct, frozen=True, forbid_unknown_fields=True):
    """Latency limits of a request: durations such as "500ms"; an omitted one is no limit."""

    ttft: Annotated[str, Meta(description="Time to the first token.")] = ""
    tpot: Annotated[str, Meta(description="(e2e - TTFT) / (tokens - 1).")] = ""
    itl: Annotated[str, Meta(description="Gap between two chunks of a stream.")] = ""
    e2e: Annotated[str, Meta(description="Time to the last token.")] = ""


class AlertTable(Struct, frozen=True, forbid_unknown_fields=True):
    """An alert rule. The screen and `llmtop watch` report when an alert begins and when it ends."""

    when: Annotated[
        str, Meta(description='Condition: "hung", "kv > 95% for 1m", "ttft_p95 > 500ms for 30s".')
    ]
    engines: Annotated[
        tuple[str, ...], Meta(description="Names of the engines that it applies to; empty: all.")
    ] = ()
    command: Annotated[
        tuple[str, ...],
        Meta(description="Program and arguments to run; no shell. It gets the alert as JSON."),
    ] = ()
    webhook: Annotated[str, Meta(description="Address that an alert is posted to, as JSON.")] = ""
    webhook_from: Annotated[
        str, Meta(description="Environment variable with the address, if it holds a secret.")
    ] = ""
    bell: Annotated[bool, Meta(description="Ring the terminal and show a notice (OSC 9).")] = False


class ScreenTable(Struct, frozen=True, forbid_unknown_fields=True):
    """The dashboard."""

    theme: Annotated[str, Meta(description="Colour theme.")] = ""
    interval: Annotated[float, Meta(ge=0.2, le=60, description="Seconds between two samples.")] = (
        1.0
    )
    ascii: Annotated[bool, Meta(description="Draw with ASCII characters only.")] = False
    readonly: Annotated[bool, Meta(description="Disable all keys that change state.")] = False
    gpu_hour: Annotated[
        float, Meta(ge=0, description="Price of one GPU hour, for cost per token; 0: unknown.")
    ] = 0.0
    low_bandwidth: Annotated[
        bool, Meta(description="Redraw less often: at most 1,000 bytes/s at 120x40.")
    ] = False
    mouse: Annotated[bool, Meta(description="Use the mouse; false: the terminal selects text.")] = (
        True
    )


class ConfigTable(Struct, frozen=True, forbid_unknown_fields=True):
    """llmtop.toml: engines, loads, alerts and the screen, by name."""

    engines: Mapping[str, EngineTable] = field(default_factory=dict)
    shapes: Annotated[
        Mapping[str, str | ShapeTable], Meta(description="Load over time: `--shape @NAME`.")
    ] = field(default_factory=dict)
    prompts: Mapping[str, PromptsTable] = field(default_factory=dict)
    slos: Mapping[str, SloTable] = field(default_factory=dict)
    alerts: Mapping[str, AlertTable] = field(default_factory=dict)
    screen: ScreenTable = field(default_factory=ScreenTable)
    keys: Annotated[
        Mapping[str, str],
        Meta(description='Keys that replace the defaults of commands: "load.more" = "plus,w".'),
    ] = field(default_factory=dict)
