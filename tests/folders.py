"""Where the tests find the files that they share."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
