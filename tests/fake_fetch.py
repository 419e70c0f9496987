"""A scripted fetch: what a test has an engine's pages answer."""

from __future__ import annotations

from collections.abc import Iterable

from llmtop.engines.metrics.exposition import ScrapeError


class FakeFetch:
    """Answers from a script: texts, or errors to raise, by turns; the last one repeats.

    ``pages`` maps a URL to its answers; a URL that is not in it answers 404.
    """

    def __init__(self, pages: dict[str, Iterable[str | ScrapeError]]) -> None:
        self._pages = {url: list(answers) for url, answers in pages.items()}
        self.asked: list[str] = []

    async def __call__(self, url: str) -> str:
        """The next answer for this URL."""
        self.asked.append(url)
        answers = self._pages.get(url)
        if not answers:
            raise ScrapeError(f"{url} answered with HTTP 404", status=404)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, ScrapeError):
            raise answer
        return answer
