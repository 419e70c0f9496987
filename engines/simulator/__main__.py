"""``python -m llmtop.engines.simulator``."""

from __future__ import annotations

import asyncio
import os
import sys

from llmtop.engines.simulator.arguments import parse
from llmtop.engines.simulator.serve import serve

if __name__ == "__main__":
    sys.exit(asyncio.run(serve(parse(), os.environ)))
