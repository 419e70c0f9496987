from pathlib import Path

import pytest

from llmtop.themes.theme import VOCABULARY, ThemeError, load_themes, parse_theme
from llmtop.tui.terminal.theming import to_textual


def luminance(colour: str) -> float:
    """WCAG 2.1, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_built_in_themes_are_complete() -> None:
    themes, problems = load_themes()
    assert not problems
    assert list(themes) == ["dark", "light", "contrast", "colour-blind", "sixteen"]
    assert all(set(theme.colours) == set(VOCABULARY) for theme in themes.values())


@pytest.mark.parametrize(("name", "least"), [("dark", 4.0), ("light", 4.0), ("contrast", 7.0)])
def test_numbers_and_words_can_be_read(name: str, least: float) -> None:
    colours = load_themes()[0][name].colours
    quiet = {"background", "faint", "cursor-background", "ttft-p50"}
    for word in set(VOCABULARY) - quiet:
        assert contrast(colours[word], colours["background"]) >= least, word


def test_a_theme_of_the_operator_may_leave_colours_out(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\ndark = false\n[colours]\nttft = "#123456"\n'
    )
    themes, problems = load_themes(tmp_path)
    assert not problems
    assert themes["mine"].colours["ttft"] == "#123456"
    assert themes["mine"].colours["background"] == themes["light"].colours["background"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name = ", "not TOML"),
        ('name = "Bad Name"', "name is missing"),
        ("dark = true", "name is missing"),
        ('name = "x"\ndark = "yes"', "dark is true or false"),
        ('name = "x"\n[colours]\nttft = "reddish"', "ttft is not a colour: 'reddish'"),
        ('name = "x"\n[colours]\nttft = 7', "ttft is not a colour: 7"),
        ('name = "x"\n[colours]\nttff = "#fff"', "unknown colour 'ttff'"),
        ('name = "x"\n[colours]\nttft = "#fff; } * { color: red"', "ttft is not a colour"),
    ],
)
def test_a_broken_theme_is_a_notice_and_the_others_load(
    tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "a-broken.toml").write_text(text)
    (tmp_path / "good.toml").write_text('name = "good"\n')
    themes, problems = load_themes(tmp_path)
    assert "good" in themes
    assert [p.file for p in problems] == ["a-broken.toml"]
    assert reason in problems[0].reason


def test_bytes_that_are_no_text_are_a_notice(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "huge.toml").write_text("#" * 70_000)
    (tmp_path / "folder.toml").mkdir()
    assert [p.file for p in load_themes(tmp_path)[1]] == ["binary.toml", "huge.toml"]


def test_no_folder_is_no_problem(tmp_path: Path) -> None:
    assert load_themes(tmp_path / "none")[1] == []


def test_without_anything_to_fall_back_on_a_colour_that_is_missing_is_named() -> None:
    with pytest.raises(ThemeError, match="no colour for background, foreground"):
        parse_theme('name = "x"')


def test_the_sixteen_are_the_terminals_own() -> None:
    theme = load_themes()[0]["sixteen"]
    assert theme.ansi
    assert all(colour.startswith("ansi_") for colour in theme.colours.values())
    assert to_textual(theme).ansi
