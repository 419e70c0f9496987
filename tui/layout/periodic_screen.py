"""A screen with a beat: it rests while it is not seen, and while the terminal is the shell's."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from textual.app import App
from textual.events import ScreenResume, ScreenSuspend
from textual.timer import Timer

from llmtop.tui.textual_private.compositor import TightScreen
from llmtop.tui.widgets.canvas import Canvas

# Of a beat, behind the sources, which begin theirs as the dashboard is mounted: what is painted is
# then the newest, and their threads and the painting do not wait for each other.
BEHIND = 0.2


class PeriodicScreen(TightScreen):
    """Paints what the store says, ``beat_s`` seconds apart.

    begun: there is something to paint before the first beat. ``away``: nothing is to be painted.
    """

    def __init__(self, beat_s: float, *, begun: bool = True) -> None:
        super().__init__(begun=begun)
        self.away = False
        self._beat_s = beat_s
        self._beat: Timer | None = None

    def redraw(self) -> None:
        """One look at the store; what changed is painted."""
        raise NotImplementedError

    def tick(self) -> None:
        """The beat's own painting, where it is less than that of ``beat``."""
        self.redraw()

    def begin_redraws(self) -> None:
        """Paint from now on. For ``on_mount``."""
        self.set_timer(self._beat_s * BEHIND, self._begin)
        # At once: after the signal the process is stopped, and its next turn may be in the shell's
        # time.
        self.app.app_suspend_signal.subscribe(self, self._leave, immediate=True)
        self.app.app_resume_signal.subscribe(self, self._come_back)

    def on_unmount(self) -> None:
        """The signals hold the screen by its methods, and would hold it for ever."""
        self.app.app_suspend_signal.unsubscribe(self)
        self.app.app_resume_signal.unsubscribe(self)

    @contextmanager
    def at_once(self, canvases: Collection[Canvas], *, moving: bool = False) -> Iterator[None]:
        """What these change meanwhile is painted at its end, in one go.

        Textual's own way wakes each widget, then the screen, then a timer: a fifth of what an idle
        engine costs. It is taken where boxes are about to move (``moving``), or have to be made.
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
        self._beat = self.set_interval(self._beat_s, self._turn)
        if not self.is_seen:
            self._beat.pause()

    def _turn(self) -> None:
        if self.is_seen:
            self.tick()

    def on_screen_suspend(self, event: ScreenSuspend) -> None:
        """Another screen is on top: no work, where it covers this one."""
        if self._beat is not None and not self.is_seen:
            self._beat.pause()

    def on_screen_resume(self, event: ScreenResume) -> None:
        """On top again."""
        if self._beat is not None:
            self._beat.resume()
        self.call_after_refresh(self.redraw)

    def _leave(self, app: App[object]) -> None:
        self.away = True

    def _come_back(self, app: App[object]) -> None:
        self.away = False
        self.redraw()
        app.refresh()  # the terminal comes back empty
