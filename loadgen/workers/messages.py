"""Messages between a worker and the load: one per packet, over a socket pair."""

from __future__ import annotations

import msgspec

from llmtop.loadgen.core.results import RequestRecord
from llmtop.loadgen.workload.plan import Prompts, Target
from llmtop.loadgen.workload.schedule import Schedule

MAX_PACKET = 128 * 1024


class Setup(msgspec.Struct, tag=True, frozen=True):
    """The first message to a worker. It carries the API key, because any user can read argv.

    index, count: number of this worker, and of all workers. zero_ns: zero of the records' clock,
    monotonic. shape: of the first plan, so that its traces are read before the start. entries:
    bytes of a packed dataset, in a file whose descriptor is sent along; 0: none. gaps: records keep
    the gaps between the chunks of an answer. run: prefix of the ids of this load's requests.
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
    """Send new requests to this target; requests in flight finish at the old one."""

    target: Target


class Ready(msgspec.Struct, tag=True, frozen=True):
    """From a worker: it is ready. clock: see ``Transport``. limit: most requests in flight."""

    clock: str
    limit: int


class Records(msgspec.Struct, tag=True, frozen=True):
    """From a worker: requests that ended."""

    records: list[RequestRecord]


class WorkerFailed(msgspec.Struct, tag=True, frozen=True):
    """From a worker: the error that ends it."""

    message: str
    hint: str = ""


encode = msgspec.msgpack.Encoder().encode
to_worker = msgspec.msgpack.Decoder(Setup | Steer | Retarget).decode
to_owner = msgspec.msgpack.Decoder(Ready | Records | WorkerFailed).decode
