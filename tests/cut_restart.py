"""A llmtop that restarts an engine and holds still between its stop and its start, to be killed.

Arguments: the engine's name. It prints "stopped" once the old one is gone.
"""

from __future__ import annotations

import sys

from llmtop.engines.supervision.restart import Wanted, carry_out
from llmtop.operations.wiring import Wiring


def main() -> None:
    supervisor = Wiring().supervisor

    def hold(*_: object, **__: object) -> None:
        print("stopped", flush=True)
        sys.stdin.read()

    supervisor.launch = hold  # type: ignore[method-assign,assignment]
    carry_out(supervisor, supervisor.find(sys.argv[1]), Wanted({"max_model_len": 4096}))


if __name__ == "__main__":
    main()
