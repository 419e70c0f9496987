"""Which tests of a run in several workers stay together."""

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]
from xdist.workermanage import WorkerController  # type: ignore[import-untyped]

from tests.folders import ROOT


@cache
def _shares_what_it_prepared(module: str) -> bool:
    return 'scope="module"' in (ROOT / module).read_text()


@cache
def _shares_what_its_folder_prepared(folder: Path) -> bool:
    shared = ROOT / folder / "conftest.py"
    return shared.exists() and 'scope="session"' in shared.read_text()


class ModulesTogether(LoadScopeScheduling):  # type: ignore[misc]
    """Spreads single tests; those of a module or folder that prepares something stay together.

    They run in one worker, in their order. Not by marks of groups: xdist 3.8 writes them into an
    id that pytest 9.2 does not look at.
    """

    def mark_test_complete(
        self, node: WorkerController, item_index: int, duration: float = 0
    ) -> None:
        """Note that a test has run.

        Work that is done is forgotten: xdist counts all of it at each event, which took half of
        the CPU time of the process that distributes.
        """
        super().mark_test_complete(node, item_index, duration)
        scope = self._split_scope(self.registered_collections[node][item_index])
        if all(self.assigned_work[node][scope].values()):
            del self.assigned_work[node][scope]

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        folder = Path(module).parent
        if _shares_what_its_folder_prepared(folder):
            return str(folder)
        return module if _shares_what_it_prepared(module) else nodeid
