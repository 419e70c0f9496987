"""A theme: colours by meaning, read from a TOML file. Plain values; the screen converts them.

A file says ``name``, ``dark``, and a table ``[colours]`` with any of ``VOCABULARY``; what it
leaves out comes from the built-in dark or light theme. A colour is ``#rgb``, ``#rrggbb``, or
``ansi_…``: one of the terminal's own sixteen, or ``ansi_default``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from llmtop import LlmtopError

VOCABULARY = (
    "background",
    "foreground",
    "muted",  # units, labels, whatever is read second
    "faint",  # borders and axes
    "strong",  # the numbers
    "title",
    "key",
    "brand",
    "good",
    "warn",
    "hot",  # worse than warn: saturated
    "bad",
    "mark",  # something was changed here
    "now",  # the newest dot of a chart
    "cursor-background",
    "ttft",
    "ttft-p50",
    "ttft-p99",
    "server",  # the engine's own figure beside the client's
    "kv-cache",
    "tokens",
    "prefill",
    "itl",
    "running",
    "waiting",
    "cap",
    "requests",
    "load",
    "gpu-memory",
)

_ANSI = "black|red|green|yellow|blue|magenta|cyan|white"
_COLOUR = re.compile(
    rf"#[0-9a-fA-F]{{3}}|#[0-9a-fA-F]{{6}}|ansi_default|ansi_(?:bright_)?(?:{_ANSI})"
)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_BUILT_IN = ("dark", "light", "contrast", "colour-blind", "sixteen")
_LARGEST = 64 * 1024


class ThemeError(LlmtopError):
    """A theme file cannot be used."""


class Theme(Struct, frozen=True):
    """Colours by the words of ``VOCABULARY``, every one present.

    ansi: its colours are the terminal's own, which llmtop never redefines.
    """

    name: str
    dark: bool
    colours: Mapping[str, str]
    ansi: bool = False


class ThemeProblem(Struct, frozen=True):
    """A theme file that was left out, and why."""

    file: str
    reason: str


def parse_theme(text: str, fallbacks: Mapping[bool, Theme] | None = None) -> Theme:
    """A theme from TOML text. fallbacks: by ``dark``, for colours that are left out.

    Raises ThemeError, naming what is wrong.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ThemeError(f"not TOML: {error}") from error
    name, dark, colours = data.get("name"), data.get("dark", True), data.get("colours", {})
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ThemeError("name is missing, or not in small letters, figures and dashes")
    if not isinstance(dark, bool) or not isinstance(colours, dict):
        raise ThemeError("dark is true or false, and [colours] is a table")
    for word, colour in colours.items():
        if word not in VOCABULARY:
            raise ThemeError(f"unknown colour {word!r}", f"one of {', '.join(VOCABULARY)}")
        if not isinstance(colour, str) or not _COLOUR.fullmatch(colour):
            raise ThemeError(f"{word} is not a colour: {colour!r}", "like #7fd18b or ansi_green")
    fallback = (fallbacks or {}).get(dark)
    known = {**(fallback.colours if fallback else {}), **colours}
    missing = [word for word in VOCABULARY if word not in known]
    if missing:
        raise ThemeError(f"no colour for {', '.join(missing)}")
    return Theme(name, dark, known, ansi=known["background"] == "ansi_default")


def load_themes(user_folder: Path | None = None) -> tuple[dict[str, Theme], list[ThemeProblem]]:
    """The built-in themes and those of ``user_folder``, by name; the operator's win.

    A file that cannot be used is a problem in the list and takes nothing else with it.
    """
    themes: dict[str, Theme] = {}
    problems: list[ThemeProblem] = []
    for stem in _BUILT_IN:
        theme = parse_theme(Path(__file__).with_name(f"{stem}.toml").read_text("utf-8"))
        themes[theme.name] = theme
    fallbacks = {True: themes["dark"], False: themes["light"]}
    for path in _user_files(user_folder, problems):
        try:
            if path.stat().st_size > _LARGEST:
                raise ThemeError("larger than any theme needs to be")
            theme = parse_theme(path.read_text("utf-8"), fallbacks)
            themes[theme.name] = theme
        except ThemeError as error:
            hint = f" ({error.hint})" if error.hint else ""
            problems.append(ThemeProblem(path.name, error.message + hint))
        except (OSError, UnicodeDecodeError) as error:
            problems.append(ThemeProblem(path.name, f"cannot be read: {error}"))
    return themes, problems


def _user_files(folder: Path | None, problems: list[ThemeProblem]) -> list[Path]:
    if folder is None:
        return []
    try:
        return sorted(p for p in folder.iterdir() if p.suffix == ".toml" and p.is_file())
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(ThemeProblem(folder.name, f"cannot be read: {error}"))
        return []
