"""Which values of a parametrised test `make test` runs, and which `make test-more` does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first(keep: int, values: Iterable[Any], names: int = 1) -> list[Any]:
    """The values for ``parametrize``: the first ``keep`` as they are, the others marked ``more``.

    names: how many arguments a value is for; with more than one, a value is a tuple of them.
    """
    return [
        value
        if place < keep
        else pytest.param(*(value if names > 1 else (value,)), marks=pytest.mark.more)
        for place, value in enumerate(values)
    ]
