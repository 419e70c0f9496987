"""The tour: a scripted demonstration on an engine, with captions. The clock is passed in."""

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

POLL_S = 1.0  # between two checks whether the engine has ended


class Tour(Struct):
    """Plays a script on one engine until it ends or the operator takes over.

    ready: awaited before the first scene, returns the engine's options. report: receives the level
    and text of an event. ended: whether the engine has ended. speed: script seconds per clock
    second. sleep: of the clock. to_restore: the original values of changed options, until they are
    restored. owned: llmtop started the engine.
    """

    engine: str
    control: Control
    ready: Callable[[], Awaitable[Sequence[Option]]]
    report: Callable[[str, str], None]
    ended: Callable[[], bool]
    speed: float = 1.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    caption: Caption | None = None
    running: bool = False
    to_restore: dict[str, OptionValue] = field(default_factory=dict)
    owned: bool = False
    _holds: bool = False
    _options: dict[str, Option] = field(default_factory=dict)
    _stopped: bool = False

    async def play(self) -> None:
        """Play all scenes. Options are restored in every case."""
        try:
            options = await self.ready()
        except LlmtopError as error:
            self.report("error", refusal(error))
            return
        if self._stopped:
            return
        self._options = {option.name: option for option in options}
        scenes = script(options, owned=self.owned)
        total = sum(scene.seconds for scene in scenes)
        elapsed = 0.0
        self.running = True
        try:
            for scene in scenes:
                self.caption = Caption(scene.title, scene.words, elapsed / total)
                for step in scene.steps:
                    if not self.running:
                        return
                    await self._do(step)
                await self._hold(scene.seconds / self.speed)
                elapsed += scene.seconds
                if self.running and self.ended():
                    await self._abort()
                if not self.running:
                    return
        finally:
            self.running, self.caption = False, None
            if not self._stopped:
                await self.restore()

    async def _hold(self, seconds: float) -> None:
        """Show a scene while the engine runs."""
        while seconds > 0 and self.running and not self.ended():
            await self.sleep(min(seconds, POLL_S))
            seconds -= POLL_S

    async def _abort(self) -> None:
        """End the tour because its engine has ended.

        The captions would be wrong, another engine may use the address, and the live changes ended
        with the process.
        """
        self.running, self.caption = False, None
        self.to_restore.clear()
        self._holds = False  # the hold ends with its engine
        self.report("warning", f"the tour ends: {self.engine} does not run any more")
        with suppress(LlmtopError):  # there may be none
            await self.control.cut_load()

    def stop(self) -> Coroutine[Any, Any, None]:
        """End the tour for the operator.

        The call removes the caption at once. The returned coroutine holds the load at its level and
        restores the options.
        """
        was_running = self.running
        self.running, self.caption, self._stopped = False, None, True
        return self._hand_over(was_running)

    async def _hand_over(self, was_running: bool) -> None:
        if was_running:
            try:
                await self.control.freeze()
            except Exception as error:
                self.report("error", refusal(error))
            self.report("info", "the tour ends: the load stays at its level; now use the keys")
        await self.restore()

    async def restore(self) -> None:
        """End a hold of the tour, then restore the options to their values before the tour."""
        await self._end_hold()
        for name, value in list(self.to_restore.items()):
            await self._change(name, value)
            if name not in self.to_restore:
                self.report("info", f"{name} is {f.option(value)} again, as before the tour")

    async def _do(self, step: Step) -> None:
        try:
            if step.shape:
                await self.control.load(Plan(shape=_scaled(step.shape, self.speed)), step.prompts)
            elif step.stop:
                await self.control.stop_load()
        except Exception as error:
            self.report("warning", f"tour: {refusal(error)}")
        if step.hold == END:
            await self._end_hold()
        elif step.hold:
            await self._begin_hold(step.hold)
        if step.option in self._options:
            option = self._options[step.option]
            if step.value is not None:
                self.to_restore.setdefault(step.option, option.value)
                await self._change(step.option, step.value)
            elif step.option in self.to_restore:
                await self._change(step.option, self.to_restore[step.option])

    async def _begin_hold(self, slo: str) -> None:
        self._holds = True
        try:
            await self.control.start_hold(self.engine, slo)
        except Exception as error:
            self._holds = False
            self.report("warning", f"tour: {refusal(error)}")
            return
        if not self.running:  # the operator took over during the start
            self._holds = True
            await self._end_hold()

    async def _end_hold(self) -> None:
        if not self._holds:
            return
        self._holds = False
        try:
            await self.control.end_hold(self.engine)
        except Exception as error:
            self.report("warning", f"tour: {refusal(error)}")

    async def _change(self, name: str, value: OptionValue) -> None:
        """Set an option; remove it from ``to_restore`` once it has its original value."""
        option = self._options[name]
        reason = resolution.refusal(option, value)
        try:
            if reason is not None:
                raise ValueError(reason)
            purpose = Purpose("the tour", {name: option.value})
            change = await self.control.set_option(self.engine, name, value, purpose=purpose)
        except Exception as error:
            words = reason or refusal(error)
            self.report("warning", f"tour: {name} stays as it is: {words}")
            return
        if change.failed:
            self.report("warning", f"tour: {name} = {f.option(value)} was refused: {change.reason}")
        elif self.to_restore.get(name) == value:
            del self.to_restore[name]


def _scaled(shape: str, speed: float) -> str:
    """Divide the durations in a shape by the tour's speed, to match the scenes' durations."""
    if speed == 1.0:
        return shape
    words = []
    for word in shape.split(" "):
        duration = word.rstrip(",")
        if duration.endswith("s") and duration[:-1].isdigit():
            word = f"{float(duration[:-1]) / speed:.3f}s" + word[len(duration) :]
        words.append(word)
    return " ".join(words)
