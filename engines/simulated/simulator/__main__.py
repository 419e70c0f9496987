"""``python -m llmtop.engines.simulated.simulator``."""

from __future__ import annotations

import asyncio
import os
import sys

from llmtop.engines.simulated.simulator.arguments import parse
from llmtop.engines.simulated.simulator.serve import serve

if __name__ == "__main__":
    sys.exit(asyncio.run(serve(parse(), os.environ)))
