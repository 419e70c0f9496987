"""The tour: a scripted show on an engine, with captions. The script is a function of what the
engine can do; the tour plays it on a clock that is passed in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from llmtop import LlmtopError
from llmtop.engines import settings
from llmtop.engines.loans import Purpose
from llmtop.engines.options import Applies, Option, OptionValue, Outcome
from llmtop.loadgen.plan import Plan, Prompts
from llmtop.tui import format as f
from llmtop.tui.control import Control, refusal
from llmtop.tui.panels.view import Caption

CAP = "max_num_seqs"
CAPS = (CAP, "max_running_requests")
CONTEXT = ("max_model_len", "context_length", "max_seq_len")
SPECULATION = "num_speculative_tokens"
MOST = 1024  # streams at the cap: enough for any single GPU's knee
USUAL_CAP = 256  # where the engine does not tell its own
LOOK_S = 1.0  # how soon the end of the engine is seen
SKIPPED_S = 6.0  # a scene that cannot be shown says so for so long

# Short answers show what batching does; long prompts fill the KV cache without more streams.
CHAT = Prompts(prompt_tokens=(448, 576), output_tokens=(112, 144))
REPETITIVE = Prompts(prompt_tokens=(448, 576), output_tokens=(112, 144), repetitive=True)
LONGEST = 4096 + 288
LONG = Prompts(prompt_tokens=(3072, 4096), output_tokens=(224, 288))


@dataclass(frozen=True, slots=True)
class Step:
    """Something done. shape: a load, with prompts where they change. option, value: a change;
    a value of None puts back what was there before the tour."""

    shape: str = ""
    prompts: Prompts | None = None
    option: str = ""
    value: OptionValue = None
    stop: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """A part of the show: what is said, what is done at its beginning, how long it is looked at."""

    title: str
    words: str
    seconds: float
    steps: tuple[Step, ...] = ()


def script(options: Sequence[Option]) -> tuple[Scene, ...]:
    """The scenes for an engine with these options, five minutes where it can do all of it.

    What it cannot do is left out, and the caption says so.
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
        Scene("idle", "nothing is asked: no queue, an empty KV cache, power near idle", 12),
        Scene(
            "linear growth",
            f"streams from 1 to {small}: tokens/s grow with them, TTFT hardly moves",
            40,
            (Step(shape=f"ramp 1..{small} over 38s, hold {small}", prompts=CHAT),),
        ),
        Scene(
            "the knee",
            f"on to {half} streams: tokens/s bend, TTFT rises; more load buys less",
            45,
            (Step(shape=f"ramp {small}..{half} over 43s, hold {half}"),),
        ),
        Scene(
            "overload",
            f"{over} streams{beyond}: the rest waits, oldest grows first",
            35,
            (Step(shape=f"ramp {half}..{over} over 12s, hold {over}"),),
        ),
        *_cap_scenes(cap, half, small),
        *_speculation_scenes(live.get(SPECULATION), low),
        *_kv_scenes(half, roomy),
        Scene(
            "recovery",
            f"back to {low} streams: the queue empties, TTFT falls, nothing was restarted",
            28,
            (Step(shape=f"hold {low}", prompts=CHAT),),
        ),
        Scene("the end", "the load stops, options are as they were; the keys are yours", 8,
              (Step(stop=True),)),
    )  # fmt: skip


def _cap_scenes(cap: Option | None, half: int, small: int) -> tuple[Scene, ...]:
    if cap is None:
        words = "this engine does not change its batch limit while it runs: left out"
        return (Scene("batch limit", words, SKIPPED_S, (Step(shape=f"hold {half}"),)),)
    low = max(int(cap.minimum or 1), small)
    return (
        Scene(
            "batch limit, live",
            f"{cap.name} down to {low}, live: token gaps shrink, the queue grows",
            24,
            (Step(shape=f"hold {half}"), Step(option=cap.name, value=low)),
        ),
        Scene(
            "batch limit back",
            f"{cap.name} is as it was: the queue empties, no request was lost",
            18,
            (Step(option=cap.name),),
        ),
    )


def _speculation_scenes(speculation: Option | None, low: int) -> tuple[Scene, ...]:
    armed = speculation is not None and bool(speculation.launch) and speculation.minimum == 0
    if speculation is None or not armed:
        words = "speculation cannot be switched as it runs here: left out"
        return (Scene("speculation", words, SKIPPED_S),)
    return (
        Scene(
            "speculation off",
            f"{low} streams of text that repeats itself, one token a step",
            20,
            (
                Step(option=SPECULATION, value=0),
                Step(shape=f"hold {low}", prompts=REPETITIVE),
            ),
        ),
        Scene(
            "speculation on",
            f"{speculation.launch} draft tokens a step, live: each that is right is a token more",
            20,
            (Step(option=SPECULATION, value=speculation.launch),),
        ),
    )


def _kv_scenes(half: int, roomy: bool) -> tuple[Scene, ...]:
    if not roomy:
        words = "prompts of 4,096 tokens do not fit into this engine's context: left out"
        return (Scene("KV pressure", words, SKIPPED_S),)
    return (
        Scene(
            "KV pressure",
            f"{half} streams of 4k prompts: the cache fills, what has no room waits",
            44,
            (Step(option=SPECULATION), Step(shape=f"hold {half}", prompts=LONG)),
        ),
    )


@dataclass(slots=True)
class Tour:
    """Plays a script on one engine until it ends or somebody takes over.

    ready: awaited before the first scene, gives the engine's options. speed: seconds of the script
    in one of the clock's. sleep: of the clock. tell: takes what goes wrong, and what was put back.
    owed: options as they were, until they are put back.
    """

    engine: str
    control: Control
    ready: Callable[[], Awaitable[Sequence[Option]]]
    tell: Callable[[str, str], None]
    ended: Callable[[], bool]
    speed: float = 1.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    caption: Caption | None = None
    running: bool = False
    owed: dict[str, OptionValue] = field(default_factory=dict)
    _options: dict[str, Option] = field(default_factory=dict)
    _stopped: bool = False

    async def play(self) -> None:
        """From the first scene to the last; options are put back however it ends."""
        try:
            options = await self.ready()
        except LlmtopError as error:
            self.tell("error", refusal(error))
            return
        if self._stopped:
            return
        self._options = {option.name: option for option in options}
        scenes = script(options)
        whole = sum(scene.seconds for scene in scenes)
        gone = 0.0
        self.running = True
        try:
            for scene in scenes:
                self.caption = Caption(scene.title, scene.words, gone / whole)
                for step in scene.steps:
                    if not self.running:
                        return
                    await self._do(step)
                await self._hold(scene.seconds / self.speed)
                gone += scene.seconds
                if self.running and self.ended():
                    await self._break_off()
                if not self.running:
                    return
        finally:
            self.running, self.caption = False, None
            if not self._stopped:
                await self.put_back()

    async def _hold(self, seconds: float) -> None:
        """Let a scene be seen, for as long as there is something to see."""
        while seconds > 0 and self.running and not self.ended():
            await self.sleep(min(seconds, LOOK_S))
            seconds -= LOOK_S

    async def _break_off(self) -> None:
        """The engine has ended: its captions would not be true, its address may be another's, and
        what was changed as it ran has ended with it."""
        self.running, self.caption = False, None
        self.owed.clear()
        self.tell("warning", f"the tour ends: {self.engine} does not run any more")
        with suppress(LlmtopError):  # there may be none
            await self.control.cut_load()

    def stop(self) -> Coroutine[Any, Any, None]:
        """Somebody takes over: the caption leaves at once; then, awaited, the load is held where it
        is and options are put back."""
        played = self.running
        self.running, self.caption, self._stopped = False, None, True
        return self._hand_over(played)

    async def _hand_over(self, played: bool) -> None:
        if played:
            try:
                await self.control.freeze()
            except Exception as error:
                self.tell("error", refusal(error))
            self.tell("info", "the tour ends: the load stays where it is, the keys are yours")
        await self.put_back()

    async def put_back(self) -> None:
        """Options as they were before the tour."""
        for name, value in list(self.owed.items()):
            await self._change(name, value)
            if name not in self.owed:
                self.tell("info", f"{name} is {f.option(value)} again, as before the tour")

    async def _do(self, step: Step) -> None:
        try:
            if step.shape:
                await self.control.load(Plan(shape=_paced(step.shape, self.speed)), step.prompts)
            elif step.stop:
                await self.control.stop_load()
        except Exception as error:
            self.tell("warning", f"tour: {refusal(error)}")
        if step.option in self._options:
            option = self._options[step.option]
            if step.value is not None:
                self.owed.setdefault(step.option, option.value)
                await self._change(step.option, step.value)
            elif step.option in self.owed:
                await self._change(step.option, self.owed[step.option])

    async def _change(self, name: str, value: OptionValue) -> None:
        """Ask for a value; once it is the one from before the tour, nothing is owed any more."""
        option = self._options[name]
        reason = settings.refusal(option, value)
        try:
            if reason is not None:
                raise ValueError(reason)
            purpose = Purpose("the tour", {name: option.value})
            change = await self.control.set_option(self.engine, name, value, purpose=purpose)
        except Exception as error:
            words = reason or refusal(error)
            self.tell("warning", f"tour: {name} stays as it is: {words}")
            return
        if change.outcome is Outcome.REFUSED:
            self.tell("warning", f"tour: {name} = {f.option(value)} was refused: {change.reason}")
        elif self.owed.get(name) == value:
            del self.owed[name]


def _paced(shape: str, speed: float) -> str:
    """The shape at the tour's speed: its ramps are as long as the scenes that show them."""
    if speed == 1.0:
        return shape
    words = []
    for word in shape.split(" "):
        bare = word.rstrip(",")
        if bare.endswith("s") and bare[:-1].isdigit():
            word = f"{float(bare[:-1]) / speed:.3f}s" + word[len(bare) :]
        words.append(word)
    return " ".join(words)
