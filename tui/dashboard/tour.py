"""The tour: a scripted show on an engine, with captions, on a clock that is passed in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct, field

from llmtop import LlmtopError
from llmtop.engines.core.options import Option, OptionValue
from llmtop.engines.state.temporary_changes import Purpose
from llmtop.engines.tuning import resolution
from llmtop.loadgen.workload.plan import Plan
from llmtop.tui.commands.control import Control, refusal
from llmtop.tui.dashboard.tour_script import END, Step, script
from llmtop.tui.view.caption import Caption
from llmtop.wording import format as f

LOOK_S = 1.0  # how soon the end of the engine is seen


class Tour(Struct):
    """Plays a script on one engine until it ends or the operator takes over.

    ready: awaited before the first scene, returns the engine's options. speed: script seconds per
    clock second. sleep: of the clock. tell: receives errors, and reports of restored options.
    owed: earlier values of options until they are restored. ours: llmtop started the engine.
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
    ours: bool = False
    _holds: bool = False
    _options: dict[str, Option] = field(default_factory=dict)
    _stopped: bool = False

    async def play(self) -> None:
        """Play all scenes; options are restored in every case."""
        try:
            options = await self.ready()
        except LlmtopError as error:
            self.tell("error", refusal(error))
            return
        if self._stopped:
            return
        self._options = {option.name: option for option in options}
        scenes = script(options, ours=self.ours)
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
        """Show a scene while the engine runs."""
        while seconds > 0 and self.running and not self.ended():
            await self.sleep(min(seconds, LOOK_S))
            seconds -= LOOK_S

    async def _break_off(self) -> None:
        """End the tour with its engine: captions would be wrong, another engine may have the
        address, and live changes ended with the process."""
        self.running, self.caption = False, None
        self.owed.clear()
        self._holds = False  # a holder ends with its engine
        self.tell("warning", f"the tour ends: {self.engine} does not run any more")
        with suppress(LlmtopError):  # there may be none
            await self.control.cut_load()

    def stop(self) -> Coroutine[Any, Any, None]:
        """The operator takes over: the caption disappears at once; then, awaited, the load is held
        at its level and options are restored."""
        played = self.running
        self.running, self.caption, self._stopped = False, None, True
        return self._hand_over(played)

    async def _hand_over(self, played: bool) -> None:
        if played:
            try:
                await self.control.freeze()
            except Exception as error:
                self.tell("error", refusal(error))
            self.tell("info", "the tour ends: the load stays at its level; now use the keys")
        await self.put_back()

    async def put_back(self) -> None:
        """Options as they were before the tour; a hold of the tour ends first."""
        await self._end_hold()
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
        if step.hold == END:
            await self._end_hold()
        elif step.hold:
            await self._begin_hold(step.hold)
        if step.option in self._options:
            option = self._options[step.option]
            if step.value is not None:
                self.owed.setdefault(step.option, option.value)
                await self._change(step.option, step.value)
            elif step.option in self.owed:
                await self._change(step.option, self.owed[step.option])

    async def _begin_hold(self, slo: str) -> None:
        self._holds = True
        try:
            await self.control.start_hold(self.engine, slo)
        except Exception as error:
            self._holds = False
            self.tell("warning", f"tour: {refusal(error)}")
            return
        if not self.running:  # the operator took over while it began
            self._holds = True
            await self._end_hold()

    async def _end_hold(self) -> None:
        if not self._holds:
            return
        self._holds = False
        try:
            await self.control.end_hold(self.engine)
        except Exception as error:
            self.tell("warning", f"tour: {refusal(error)}")

    async def _change(self, name: str, value: OptionValue) -> None:
        """Ask for a value; once it is the one from before the tour, nothing is owed any more."""
        option = self._options[name]
        reason = resolution.refusal(option, value)
        try:
            if reason is not None:
                raise ValueError(reason)
            purpose = Purpose("the tour", {name: option.value})
            change = await self.control.set_option(self.engine, name, value, purpose=purpose)
        except Exception as error:
            words = reason or refusal(error)
            self.tell("warning", f"tour: {name} stays as it is: {words}")
            return
        if change.failed:
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
