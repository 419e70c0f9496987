"""The plan of a load: target, prompts, loop and shape. Frozen values."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from msgspec import Struct

from llmtop.loadgen.workload.lengths import Lengths, Pauses
from llmtop.trust import SYSTEM, Trust
from llmtop.values import Secretive


class Loop(StrEnum):
    """Who decides when the next request goes out."""

    CLOSED = "closed"  # level = streams in flight; a finished one makes room for the next
    OPEN = "open"  # level = requests a second on an absolute schedule, whatever comes back


class Arrival(StrEnum):
    """How the requests of an open loop are spaced."""

    CONSTANT = "constant"  # evenly
    POISSON = "poisson"  # independently of each other, as many users do
    GAMMA = "gamma"  # in bursts or evenly, as its burstiness says


class Target(Secretive, frozen=True):
    """Where the requests go. url: scheme, host and port, and a path where it lies below one.

    api_key is never shown. trust: the certificates to trust. rid: a request's id is
    sent in its body too, under this name, which is SGLang's way; a server that checks its input
    refuses a name that it does not know.
    """

    secret: ClassVar[tuple[str, ...]] = ("api_key",)

    url: str
    model: str
    chat: bool = False
    api_key: str = ""
    trust: Trust = SYSTEM
    rid: bool = False


class Prompts(Struct, frozen=True):
    """What is asked. Lengths are in tokens, pauses in seconds, see ``lengths``.

    shared_prefix_tokens of every prompt are the same in a share (0..1) of the requests.
    repetitive: a text that repeats itself, which n-gram speculation guesses well.
    text: send words instead of token ids; lengths are then about right instead of exact. Chats
    always are.
    ignore_eos: answers have the length that was asked for; else that is the most they can have.
    json_schema: the text of a JSON schema that answers must follow, "" for none; they then end
    when they are complete, whatever ignore_eos says.
    chat: ask as chats, whatever the target says.
    turns: of a conversation; each carries the ones before, with the model's own answers. More than
    one are always chats.
    think_s: pause between an answer and the conversation's next turn.
    dataset: path of a file of prompts that replace the made ones, "" for none, see ``dataset``.
    """

    prompt_tokens: Lengths = (128, 128)
    output_tokens: Lengths = (128, 128)
    shared_prefix_tokens: int = 0
    shared_prefix_share: float = 0.0
    repetitive: bool = False
    temperature: float = 1.0
    text: bool = False
    ignore_eos: bool = True
    json_schema: str = ""
    turns: int = 1
    think_s: Pauses = (0.0, 0.0)
    dataset: str = ""
    chat: bool = False

    @property
    def as_chat(self) -> bool:
        """Whether they can only be asked as chats."""
        return self.chat or self.turns > 1


class Plan(Struct, frozen=True):
    """The load over time. shape: the text of a shape, see ``shape.parse``.

    seed: prompts and arrivals; the same seed asks the same again, so an engine that caches prefixes
    remembers the run before. arrivals: plans of one load that share it meet the same arrivals and
    lengths with new prompts, so that what they measure can be compared; None: arrivals are of
    ``seed``, and differ. arrival: open loop only. burstiness: shape of the gamma distribution
    of the gaps, when that is the arrival: 1 is Poisson, less comes in bursts, infinity is constant.
    """

    loop: Loop = Loop.CLOSED
    shape: str = "hold 1"
    seed: int = 0
    arrival: Arrival = Arrival.POISSON
    burstiness: float = 1.0
    arrivals: int | None = None
