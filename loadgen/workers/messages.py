"""Messages between a worker and the load: one in each packet, over a socket pair."""

from __future__ import annotations

import msgspec

from llmtop.loadgen.core.results import RequestRecord
from llmtop.loadgen.workload.plan import Prompts, Target
from llmtop.loadgen.workload.schedule import Schedule

MAX_PACKET = 128 * 1024


class Setup(msgspec.Struct, tag=True, frozen=True):
    """The first message to a worker. The API key travels here: argv can be read by anyone.

    shape: of the first plan, so that its traces are read before it begins. entries: bytes of a
    packed dataset, in a file whose descriptor comes along; 0: there is none. gaps: records keep
    the gaps between the pieces of an answer. run: how the ids of this load's requests begin.
    """

    target: Target
    prompts: Prompts
    seed: int
    index: int
    count: int
    zero_ns: int
    timeout_s: float
    shape: str = ""
    entries: int = 0
    gaps: bool = False
    run: str = ""


class Steer(msgspec.Struct, tag=True, frozen=True):
    """Follow this schedule from now on."""

    schedule: Schedule


class Retarget(msgspec.Struct, tag=True, frozen=True):
    """Send further requests there; what is in flight stays where it is."""

    target: Target


class Ready(msgspec.Struct, tag=True, frozen=True):
    """From a worker: bodies are prepared, the transport stands. limit: most requests in flight."""

    clock: str
    limit: int


class Records(msgspec.Struct, tag=True, frozen=True):
    """From a worker: requests that ended."""

    records: list[RequestRecord]


class WorkerFailed(msgspec.Struct, tag=True, frozen=True):
    """From a worker: its last words."""

    message: str
    hint: str = ""


encode = msgspec.msgpack.Encoder().encode
to_worker = msgspec.msgpack.Decoder(Setup | Steer | Retarget).decode
to_owner = msgspec.msgpack.Decoder(Ready | Records | WorkerFailed).decode
