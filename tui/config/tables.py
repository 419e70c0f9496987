"""The tables of ``llmtop.toml`` as they are written: names, kinds and bounds, nothing else.

The schema for editors is made from these, descriptions included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Port = Annotated[int, Meta(ge=0, le=65535)]
Gpu = Annotated[int, Meta(ge=0, le=1023)]


class EngineTable(Struct, frozen=True, forbid_unknown_fields=True):
    """An engine that `llmtop up` starts, under the name of its table."""

    engine: Annotated[str, Meta(description="What kind it is, as in `llmtop run KIND`.")]
    model: Annotated[
        str, Meta(description="A path or a name on a hub; may be left out where the kind has one.")
    ] = ""
    host: Annotated[str, Meta(description="The address that it serves on.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="0: the kind's own port, or the next free one.")] = 0
    gpus: Annotated[
        tuple[Gpu, ...], Meta(description="Indices of the GPUs that it may use; none: all.")
    ] = ()
    python: Annotated[str, Meta(description="Start it with this Python.")] = ""
    bin: Annotated[str, Meta(description="Start it with this program.")] = ""
    args: Annotated[
        tuple[str, ...], Meta(description="The engine's own flags, passed on as they are.")
    ] = ()
    env: Annotated[
        Mapping[str, str], Meta(description="Environment variables. Never a secret: see env_from.")
    ] = field(default_factory=dict)
    env_from: Annotated[
        tuple[str, ...],
        Meta(description="Variables that must be set where llmtop is called; passed on."),
    ] = ()
    api_key_file: Annotated[
        str, Meta(description="A file that holds the API key that the engine asks its clients for.")
    ] = ""
    prompts: Annotated[
        str, Meta(description="The [prompts.NAME] that load on this engine asks unless told else.")
    ] = ""


class PromptsTable(Struct, frozen=True, forbid_unknown_fields=True):
    """What a load asks.

    A length is a number of tokens, a range such as "448..576", or
    "lognormal 512 cv 0.8 max 4096".
    """

    prompt_tokens: int | str = 128
    output_tokens: int | str = 128
    shared_prefix_tokens: Annotated[
        int, Meta(ge=0, description="So many first tokens are the same in a share of the requests.")
    ] = 0
    shared_prefix_share: Annotated[float, Meta(ge=0, le=1, description="That share.")] = 0.0
    repetitive: Annotated[
        bool, Meta(description="Text that repeats itself: n-gram speculation guesses it well.")
    ] = False
    temperature: Annotated[float, Meta(ge=0, le=2)] = 1.0
    text: Annotated[
        bool, Meta(description="Send words instead of token ids; lengths are then about right.")
    ] = False
    ignore_eos: Annotated[
        bool, Meta(description="Answers have the length that was asked for; else at most that.")
    ] = True
    json_schema: Annotated[
        str, Meta(description='Answers follow the JSON schema in this file, or "builtin".')
    ] = ""
    dataset: Annotated[
        str, Meta(description="Prompts from this file: ShareGPT's JSON, or JSON lines.")
    ] = ""
    chat: Annotated[bool, Meta(description="Ask as chats.")] = False
    turns: Annotated[
        int, Meta(ge=1, le=1000, description="Turns of a conversation; more than one are chats.")
    ] = 1
    think: Annotated[
        str, Meta(description='Pause before the next turn: "2s", "1s..5s", "lognormal 5s cv 1".')
    ] = "0"


class ShapeTable(Struct, frozen=True, forbid_unknown_fields=True):
    """Load over time, with the kind of loop that it is for."""

    shape: Annotated[str, Meta(description="The shape, as `--shape` takes it.")]
    loop: Annotated[
        Literal["closed", "open"], Meta(description="Levels are streams, or requests a second.")
    ] = "closed"
    arrival: Annotated[
        Literal["constant", "poisson", "gamma"], Meta(description="In the open loop.")
    ] = "poisson"
    burstiness: Annotated[
        float, Meta(ge=0.01, description="Of gamma arrivals: 1 is Poisson, less comes in bursts.")
    ] = 1.0


class SloTable(Struct, frozen=True, forbid_unknown_fields=True):
    """What a request must keep to: durations such as "500ms"; a limit left out is none."""

    ttft: Annotated[str, Meta(description="Time to the first token.")] = ""
    tpot: Annotated[str, Meta(description="(e2e - TTFT) / (tokens - 1).")] = ""
    itl: Annotated[str, Meta(description="The gap between two pieces of a stream.")] = ""
    e2e: Annotated[str, Meta(description="Time to the last token.")] = ""


class ScreenTable(Struct, frozen=True, forbid_unknown_fields=True):
    """The dashboard."""

    theme: Annotated[str, Meta(description="The colours.")] = ""
    interval: Annotated[float, Meta(ge=0.2, le=60, description="Seconds between two samples.")] = (
        1.0
    )
    ascii: Annotated[bool, Meta(description="Draw with ASCII characters alone.")] = False
    readonly: Annotated[bool, Meta(description="No key that changes something.")] = False
    gpu_hour: Annotated[
        float, Meta(ge=0, description="What one GPU costs an hour, for the cost line; 0: not said.")
    ] = 0.0
    low_bandwidth: Annotated[
        bool, Meta(description="Paint seldom: at most 1,000 bytes a second at 120x40.")
    ] = False
    mouse: Annotated[
        bool, Meta(description="Clicks and the wheel; false: the terminal selects text with it.")
    ] = True


class ConfigTable(Struct, frozen=True, forbid_unknown_fields=True):
    """llmtop.toml: engines, loads and the screen, by name."""

    engines: Mapping[str, EngineTable] = field(default_factory=dict)
    shapes: Annotated[
        Mapping[str, str | ShapeTable], Meta(description="Load over time: `--shape @NAME`.")
    ] = field(default_factory=dict)
    prompts: Mapping[str, PromptsTable] = field(default_factory=dict)
    slos: Mapping[str, SloTable] = field(default_factory=dict)
    screen: ScreenTable = field(default_factory=ScreenTable)
    keys: Annotated[
        Mapping[str, str],
        Meta(description='Other keys for what the screen can do: "load.more" = "plus,w".'),
    ] = field(default_factory=dict)
