"""A screen that paints at each beat, except while it is covered or the job is stopped."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from textual.app import App
from textual.events import ScreenResume, ScreenSuspend
from textual.timer import Timer

from llmtop.tui.textual_private.compositor import TightScreen
from llmtop.tui.widgets.canvas import Canvas

# Fraction of a beat by which painting follows sampling. The sources start sampling when the
# dashboard is mounted. The delay shows the newest samples and avoids contention with their threads.
BEHIND = 0.2


class PeriodicScreen(TightScreen):
    """Paints the store every ``beat_s`` seconds.

    begun: paint before the first beat. ``away``: the job is stopped; do not paint.
    """

    def __init__(self, beat_s: float, *, begun: bool = True) -> None:
        super().__init__(begun=begun)
        self.away = False
        self._beat_s = beat_s
        self._beat: Timer | None = None

    def redraw(self) -> None:
        """Read the store and paint the changes."""
        raise NotImplementedError

    def tick(self) -> None:
        """Paint at a beat. A subclass may paint less than ``redraw``."""
        self.redraw()

    def begin_redraws(self) -> None:
        """Start to paint; ``on_mount`` calls it."""
        self.set_timer(self._beat_s * BEHIND, self._begin)
        # Immediate: the process is stopped after the signal, so the event loop may run too late.
        self.app.app_suspend_signal.subscribe(self, self._leave, immediate=True)
        self.app.app_resume_signal.subscribe(self, self._come_back)

    def on_unmount(self) -> None:
        """Unsubscribe: the signals refer to methods of the screen and would keep it in memory."""
        self.app.app_suspend_signal.unsubscribe(self)
        self.app.app_resume_signal.unsubscribe(self)

    @contextmanager
    def at_once(self, canvases: Collection[Canvas], *, moving: bool = False) -> Iterator[None]:
        """Paint the changes of these canvases together, at the end of the context.

        Textual would wake each widget, then the screen, then a timer, which takes a fifth of the
        CPU time of an idle screen. That way is used only if boxes move (``moving``) or are new.
        """
        compositor = self.compositor
        if moving or not self.paints_at_once or not compositor.begun:
            with self.app.batch_update():
                yield
            compositor.begun = True
            return
        for canvas in canvases:
            canvas.mark = compositor.mark
        try:
            yield
        finally:
            for canvas in canvases:
                canvas.mark = None
        self.paint_now()

    def _begin(self) -> None:
        self._beat = self.set_interval(self._beat_s, self._tick_if_seen)
        if not self.is_seen:
            self._beat.pause()

    def _tick_if_seen(self) -> None:
        if self.is_seen:
            self.tick()

    def on_screen_suspend(self, event: ScreenSuspend) -> None:
        """Pause the beat if another screen covers this one."""
        if self._beat is not None and not self.is_seen:
            self._beat.pause()

    def on_screen_resume(self, event: ScreenResume) -> None:
        """Resume the beat and paint."""
        if self._beat is not None:
            self._beat.resume()
        self.call_after_refresh(self.redraw)

    def _leave(self, app: App[object]) -> None:
        self.away = True

    def _come_back(self, app: App[object]) -> None:
        self.away = False
        self.redraw()
        app.refresh()  # the terminal is empty after a resume
