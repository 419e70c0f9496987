"""What libraries import and a screen has no use for.

Textual's command palette brings seven widgets; all of it is a twentieth of the time until the first
paint. It is turned off (``ENABLE_COMMAND_PALETTE``), so its classes are only named and never made.

asyncio brings OpenSSL for encrypted streams of its own, which nothing here opens: httpx, where it
is wanted, encrypts by itself and imports ssl then. Left out it is 4 MiB less and 10 ms sooner. So
this module is imported before anything that imports asyncio.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

PALETTE = "textual.command"


@contextmanager
def without(name: str) -> Iterator[None]:
    """A module that is not there yet cannot be imported meanwhile."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


with without("ssl"):
    import asyncio
    import http.client

__all__ = ["asyncio", "http", "import_app", "without"]


class _Names(ModuleType):
    """Has a class under every name that is asked for, so that it can be named and inherited."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("_"):
            raise AttributeError(name)
        made = type(name, (), {"__module__": self.__name__})
        setattr(self, name, made)
        return made


def import_app() -> None:
    """Import ``textual.app`` without its palette; whoever imports that later gets the real one.

    A Textual that does more with it while it is imported is imported whole.
    """
    if "textual.app" in sys.modules or PALETTE in sys.modules:
        return
    before = set(sys.modules)
    sys.modules[PALETTE] = _Names(PALETTE)
    try:
        import textual.app
    except Exception:
        for name in [n for n in sys.modules if n not in before and n.startswith("textual")]:
            del sys.modules[name]
        import textual.app  # noqa: F401
    finally:
        if isinstance(sys.modules.get(PALETTE), _Names):
            del sys.modules[PALETTE]
