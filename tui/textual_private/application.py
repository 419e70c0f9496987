"""The base class of the app: keeps a fatal error, releases the mouse, stops the whole job."""

from __future__ import annotations

import os
import signal

from textual.app import App

from llmtop.printable import clean


class PrivateApp(App[None]):
    """Functions of Textual's app that have no public name.

    fault: the error that ended the screen, in one line; "" for none.
    """

    fault = ""

    @property
    def is_ending(self) -> bool:
        """Whether ``exit`` was called."""
        return self._exit

    def _handle_exception(self, error: Exception) -> None:
        """Store the error: the command line reports it after the screen is closed."""
        if not self.fault:
            self.fault = clean(f"{type(error).__name__}: {error}", 200)
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """Print no traceback: Textual's contains local variables, which may hold secrets."""
        if "debug" in self.features:
            super()._fatal_error()
            return
        self._close_messages_no_wait()

    def ring(self, sequence: str) -> None:
        """Write a bell or a notification sequence to the terminal."""
        if sequence and not self.is_headless and self._driver is not None:
            self._driver.write(sequence)

    def take_mouse(self, *, take: bool) -> None:
        """Enable mouse events, or leave the mouse to the terminal.

        Textual has no public method for it. The flag ``_mouse`` keeps a resume from enabling the
        mouse again.
        """
        driver = self._driver
        if driver is None or not hasattr(driver, "_enable_mouse_support"):
            return
        if take:
            driver._mouse = True
            driver._enable_mouse_support()
        else:
            driver._disable_mouse_support()  # type: ignore[attr-defined]
            driver._mouse = False

    def drop_older_toasts(self, prefix: str) -> None:
        """Remove all toasts that begin with ``prefix`` but the newest one.

        Textual's public method removes all toasts, and an unread error may be among them.
        """
        toasts = [toast for toast in self._notifications if toast.message.startswith(prefix)]
        for toast in toasts[:-1]:
            self._unnotify(toast)

    def suspend_job(self) -> None:
        """Stop the whole foreground job, as the terminal's ctrl+z does.

        Textual stops only its own process, and a program that waits for it (make) would keep
        waiting. The terminal is restored first: once the job has stopped, the shell owns it.
        """
        driver = self._driver
        if driver is None or not driver.can_suspend:
            return
        self._suspend_signal()
        driver.suspend_application_mode()
        # Textual's handler of SIGCONT informs the app only with this set.
        driver._must_signal_resume = True  # type: ignore[attr-defined]
        os.killpg(os.getpgrp(), signal.SIGSTOP)
