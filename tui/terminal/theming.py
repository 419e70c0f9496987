"""Converts llmtop's themes to Textual's: colour roles become variables of the stylesheet."""

from __future__ import annotations

from textual.theme import BUILTIN_THEMES
from textual.theme import Theme as TextualTheme

from llmtop.themes.theme import Theme


def textual_name(name: str) -> str:
    """The name in Textual. The prefix keeps a theme ``nord`` from replacing Textual's."""
    return f"llmtop-{name}"


def to_textual(theme: Theme) -> TextualTheme:
    """Convert a theme to a Textual theme."""
    colours = theme.colours
    # In an ANSI theme, Textual's own widgets (toasts) need more variables.
    own = (
        BUILTIN_THEMES["ansi-dark" if theme.dark else "ansi-light"].variables if theme.ansi else {}
    )
    return TextualTheme(
        name=textual_name(theme.name),
        dark=theme.dark,
        ansi=theme.ansi,
        primary=colours["brand"],
        secondary=colours["server"],
        accent=colours["key"],
        success=colours["good"],
        warning=colours["warn"],
        error=colours["bad"],
        foreground=colours["foreground"],
        background=colours["background"],
        surface=colours["background"],
        panel=colours["background"],
        boost=colours["background"],
        variables={**own, **variables(theme)},
    )


def variables(theme: Theme) -> dict[str, str]:
    """The variables of the stylesheet that Textual does not define: all colour roles."""
    return {k: v for k, v in theme.colours.items() if k not in ("background", "foreground")}
