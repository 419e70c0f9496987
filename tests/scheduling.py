"""Which tests of a run in several workers stay together."""

from functools import cache

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.folders import ROOT


@cache
def _shares_what_it_prepared(module: str) -> bool:
    return 'scope="module"' in (ROOT / module).read_text()


class ModulesTogether(LoadScopeScheduling):  # type: ignore[misc]
    """Spreads single tests; those of a module that prepares something once stay together.

    They run in one worker, in their order. Not by marks of groups: xdist 3.8 writes them into an
    id that pytest 9.2 does not look at.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if _shares_what_it_prepared(module) else nodeid
