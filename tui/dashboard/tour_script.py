"""The script of the tour: its scenes, as a function of the engine's options. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from llmtop.engines.core.options import Applies, Option, OptionValue
from llmtop.loadgen.workload.plan import Prompts

CAP = "max_num_seqs"
CAPS = (CAP, "max_running_requests")
CONTEXT = ("max_model_len", "context_length", "max_seq_len")
SPECULATION = "num_speculative_tokens"
MOST = 1024  # streams at most: above the knee of any single GPU
QUEUE = "max_queued_requests"
HELD, END = "ttft=1s,tpot=50ms", "end"
USUAL_CAP = 256  # assumed if the engine does not report its batch limit
SKIPPED_S = 6.0  # duration of a scene that only reports that it is skipped

# Short answers show what batching does; long prompts fill the KV cache without more streams.
CHAT = Prompts(prompt_tokens=(448, 576), output_tokens=(112, 144))
REPETITIVE = Prompts(prompt_tokens=(448, 576), output_tokens=(112, 144), repetitive=True)
LONGEST = 4096 + 288
LONG = Prompts(prompt_tokens=(3072, 4096), output_tokens=(224, 288))


class Step(Struct, frozen=True):
    """One action. shape: of a load to start. prompts: of that load; None: unchanged.

    option, value: a change; a value of None restores the value before the tour. stop: stop the
    load. hold: start to hold the engine within these limits, or ``END``: end the hold.
    """

    shape: str = ""
    prompts: Prompts | None = None
    option: str = ""
    value: OptionValue = None
    stop: bool = False
    hold: str = ""


class Scene(Struct, frozen=True):
    """A part of the tour: its caption, the actions at its beginning, its duration in seconds."""

    title: str
    words: str
    seconds: float
    steps: tuple[Step, ...] = ()


def script(options: Sequence[Option], *, owned: bool = False) -> tuple[Scene, ...]:
    """The scenes for an engine with these options; with all scenes about five minutes.

    A scene that the engine does not support is replaced by a caption that says so. A hold is left
    out without a caption. owned: llmtop started the engine; only then it can be held.
    """
    live = {o.name: o for o in options if o.applies is not Applies.RESTART}
    cap = next((live[name] for name in CAPS if name in live), None)
    known = {option.name: option.value for option in options}
    value = next((known[name] for name in CAPS if isinstance(known.get(name), int)), None)
    size = max(1, min(MOST, value if isinstance(value, int) else USUAL_CAP))
    context = next((known[name] for name in CONTEXT if isinstance(known.get(name), int)), None)
    roomy = not isinstance(context, int) or context >= LONGEST
    small, half, over = max(2, size // 8), max(4, size // 2), max(8, size * 5 // 4)
    low = max(1, size // 16)
    beyond = ", above the batch limit" if isinstance(value, int) and over > value else ""
    return (
        Scene("idle", "no load: no queue, an empty KV cache, power near idle", 12),
        Scene(
            "linear growth",
            f"streams from 1 to {small}: tokens/s grows with them, TTFT hardly changes",
            40,
            (Step(shape=f"ramp 1..{small} over 38s, hold {small}", prompts=CHAT),),
        ),
        Scene(
            "the knee",
            f"up to {half} streams: tokens/s grows more slowly, TTFT rises",
            45,
            (Step(shape=f"ramp {small}..{half} over 43s, hold {half}"),),
        ),
        Scene(
            "overload",
            f"{over} streams{beyond}: the others wait in the queue",
            35,
            (Step(shape=f"ramp {half}..{over} over 12s, hold {over}"),),
        ),
        *_hold_scenes(possible=owned and cap is not None and QUEUE in live),
        *_cap_scenes(cap, half, small),
        *_speculation_scenes(live.get(SPECULATION), low),
        *_kv_scenes(half, roomy),
        Scene(
            "recovery",
            f"back to {low} streams: the queue empties and TTFT falls, without a restart",
            28,
            (Step(shape=f"hold {low}", prompts=CHAT),),
        ),
        Scene("the end", "the load stops and the options are as before; now use the keys", 8,
              (Step(stop=True),)),
    )  # fmt: skip


def _hold_scenes(*, possible: bool) -> tuple[Scene, ...]:
    if not possible:
        return ()
    return (
        Scene(
            "overload, held",
            "hold: what cannot be served in time is refused at once, TTFT falls",
            26,
            (Step(hold=HELD),),
        ),
        Scene("the hold ends", "your limits are as before: the queue grows", 8, (Step(hold=END),)),
    )


def _cap_scenes(cap: Option | None, half: int, small: int) -> tuple[Scene, ...]:
    if cap is None:
        words = "skipped: this engine cannot change its batch limit while it runs"
        return (Scene("batch limit", words, SKIPPED_S, (Step(shape=f"hold {half}"),)),)
    low = max(int(cap.minimum or 1), small)
    return (
        Scene(
            "batch limit, live",
            f"{cap.name} set to {low} live: token gaps shrink, the queue grows",
            24,
            (Step(shape=f"hold {half}"), Step(option=cap.name, value=low)),
        ),
        Scene(
            "batch limit back",
            f"{cap.name} is as before: the queue empties, and no request was lost",
            18,
            (Step(option=cap.name),),
        ),
    )


def _speculation_scenes(speculation: Option | None, low: int) -> tuple[Scene, ...]:
    switchable = speculation is not None and bool(speculation.launch) and speculation.minimum == 0
    if speculation is None or not switchable:
        words = "skipped: speculation cannot be switched while this engine runs"
        return (Scene("speculation", words, SKIPPED_S),)
    return (
        Scene(
            "speculation off",
            f"{low} streams of repetitive text: one token in each step",
            20,
            (
                Step(option=SPECULATION, value=0),
                Step(shape=f"hold {low}", prompts=REPETITIVE),
            ),
        ),
        Scene(
            "speculation on",
            f"{speculation.launch} draft tokens in each step: each correct one is one token more",
            20,
            (Step(option=SPECULATION, value=speculation.launch),),
        ),
    )


def _kv_scenes(half: int, roomy: bool) -> tuple[Scene, ...]:
    if not roomy:
        words = "skipped: prompts of 4,096 tokens do not fit into this engine's context"
        return (Scene("KV pressure", words, SKIPPED_S),)
    return (
        Scene(
            "KV pressure",
            f"{half} streams of 4k prompts: the KV cache fills, and requests without room wait",
            44,
            (Step(option=SPECULATION), Step(shape=f"hold {half}", prompts=LONG)),
        ),
    )
