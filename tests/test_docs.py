"""The documents: links lead somewhere, lines are readable in a terminal, each page has its part."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest

from llmtop.cli.main import group as root
from llmtop.engines.registry import ADAPTERS
from tests.folders import ROOT

DOCS = ROOT / "docs"
PARTS = ("guide", "reference", "explanation")
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md")], key=lambda page: page.relative_to(ROOT).as_posix()
)
WIDEST = 100
MOST_README_LINES = 120
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
NAMED = re.compile(r"\bdocs/[\w/-]+\.(?:md|json)\b")
SOURCES = ("llmtop", "tui", "engines", "loadgen", "themes", "tests", "bench")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines outside of tables."""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if not line.startswith("|"):
            yield number, line


def anchors(page: Path) -> set[str]:
    """The anchors of the page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_line_is_longer_than_a_terminal_shows(page: Path) -> None:
    wide = [number for number, line in prose(page) if len(line) > WIDEST]
    assert not wide, f"{name(page)}: lines {wide} are longer than {WIDEST} characters"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_each_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        if target.startswith(("http:", "https:")):
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{name(page)} links to {target}"
        if anchor:
            assert anchor in anchors(there), f"{name(page)} links to {target}#{anchor}"


def test_pages_that_the_code_names_exist() -> None:
    for part in SOURCES:
        for source in (ROOT / part).rglob("*.py"):
            for named in NAMED.findall(source.read_text(errors="replace")):
                assert (ROOT / named).is_file(), f"{name(source)} names {named}"


def test_each_page_belongs_to_a_part_and_the_index_names_it() -> None:
    index = (DOCS / "README.md").read_text()
    for page in DOCS.rglob("*.md"):
        inside = page.relative_to(DOCS).as_posix()
        if inside != "README.md":
            assert f"({inside})" in index, f"docs/README.md does not link {inside}"
            loose = inside in ("architecture.md", "adding-an-engine.md")
            assert loose or inside.split("/")[0] in PARTS


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_README_LINES


@pytest.mark.parametrize("kind", ADAPTERS)
def test_each_option_of_each_engine_is_on_its_page(kind: str) -> None:
    page = (DOCS / "reference" / "options.md").read_text()
    for option in ADAPTERS[kind].options:
        flag = f"`{option.flag}`" if option.flag else "none"
        row = f"\n| `{option.name}` | {flag} | {option.applies} | "
        assert row in page, f"docs/reference/options.md: {row}"


EXAMPLES = re.compile(r"ENGINE|NAME|pebble|llmtop/llmtop\.toml")  # placeholders, and ~/.config
MODULE = re.compile(
    r"\b(?:llmtop|tui|engines|loadgen|themes|tests|bench)/[\w/.-]+\.(?:py|toml|c)\b"
)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    for named in MODULE.findall(page.read_text()):
        there = (ROOT / named).is_file()
        assert there or EXAMPLES.search(named), f"{name(page)} names {named}"


def commands(page: Path) -> Iterator[list[str]]:
    """The arguments of each ``llmtop …`` in an indented example, up to a comment or a pipe."""
    text = re.sub(r"\\\n\s+", "", page.read_text())
    for line in re.findall(r"^ {4,}llmtop((?: .*)?)$", text, re.MULTILINE):
        words = shlex.split(line, comments=True)
        ends = [at for at, word in enumerate(words) if word in ("|", "&&", "--")]
        if not set(words) & {"…", "..."}:
            yield words[: ends[0]] if ends else words


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_examples_use_commands_and_flags_that_exist(page: Path) -> None:
    for words in commands(page):
        verb = next(iter(words), "") if words and not words[0].startswith("-") else ""
        command = root.get_command(click.Context(root), verb) if verb else root
        assert command is not None, f"{name(page)}: llmtop {verb}"
        known = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
        for before, word in pairwise(["", *words]):
            if word.startswith("-") and before != "--without":  # whose value is a flag
                assert word.split("=")[0] in known, f"{name(page)}: llmtop {' '.join(words)}"
