"""From our themes to Textual's: the words of the vocabulary become variables of the stylesheet."""

from __future__ import annotations

from textual.theme import BUILTIN_THEMES
from textual.theme import Theme as TextualTheme

from llmtop.themes.theme import Theme


def textual_name(name: str) -> str:
    """Our own prefix, so that a theme called ``nord`` does not replace Textual's."""
    return f"llmtop-{name}"


def to_textual(theme: Theme) -> TextualTheme:
    """The Textual theme."""
    colours = theme.colours
    # Textual's own widgets (toasts) name further variables once a theme is one of the terminal's.
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
    """What the stylesheet may name beyond Textual's own words."""
    return {k: v for k, v in theme.colours.items() if k not in ("background", "foreground")}
