"""The common part of the screens about the inside of an engine."""

from __future__ import annotations

from llmtop.config.key_table import BY_ID
from llmtop.tui.commands.control import refusal
from llmtop.tui.layout.page_screen import PageScreen
from llmtop.tui.view.elsewhere import CLOSED
from llmtop.tui.view.page import keys_row
from llmtop.tui.view.view import View
from llmtop.tui.widgets.row import Row
from llmtop.wording import format as f


class InsideScreen(PageScreen):
    """Opened on the dashboard, never on another screen of this kind."""

    def action_back(self) -> None:
        """Go back to the dashboard."""
        self.app.pop_screen()

    def show_error(self, error: Exception) -> None:
        """Show the error of a command as a toast."""
        self.notify(f.clean(refusal(error)), severity="error", markup=False)


def foot(names: list[str], view: View, width: int) -> Row:
    """The last line: keys and their words. names: the ids of their commands."""
    shown = [name for name in names if not (view.readonly and BY_ID[name].changes)]
    shown = [name for name in shown if not (view.elsewhere and name in CLOSED)]
    return keys_row([(view.keys.label(name), BY_ID[name].short) for name in shown], width)


def filled(rows: list[Row], last: Row, height: int) -> list[Row]:
    """Rows and a last line, with blank rows between them up to ``height``."""
    body = rows[: height - 1]
    return [*body, *([()] * (height - 1 - len(body))), last]
