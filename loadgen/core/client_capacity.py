"""What this client can sustain, as it was measured on this machine. A plain value."""

from __future__ import annotations

from msgspec import Struct

RATE = 50.0  # tokens a second and stream, as a person reads


class Calibration(Struct, frozen=True):
    """What the load's workers can sustain here, by the core time that a chunk cost them.

    chunks_per_s: of all workers together, each with a core to itself. us_per_chunk: CPU time.
    waited: share of the time in which the worker that waited most had no core; the verdict on each
    level looks at that for itself. at: unix seconds. load: of the machine when it was tried,
    runnable processes for each core.
    """

    chunks_per_s: float
    workers: int
    us_per_chunk: float
    waited: float
    at: float
    load: float

    @property
    def streams(self) -> int:
        """How many streams of 50 tokens a second that is."""
        return int(self.chunks_per_s / RATE)
