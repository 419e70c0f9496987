"""Prompts whose tokens are encoded before the run, so that sending costs little."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice

from llmtop import UsageError
from llmtop.loadgen.workload import structured_output
from llmtop.loadgen.workload.conversation import Conversation, Turn
from llmtop.loadgen.workload.dataset import Entry
from llmtop.loadgen.workload.lengths import (
    MAX_TOKENS,
    LogNormal,
    check_lengths,
    check_pauses,
    draw_pause,
    draw_tokens,
)
from llmtop.loadgen.workload.plan import Prompts, Target
from llmtop.loadgen.workload.request_body import RequestBody
from llmtop.loadgen.workload.trace import Size

# Token ids that any model has and no model treats specially: below 128 lie control tokens (10 is
# "an image follows" in Mistral's newer vocabularies), and small test models end at 365.
IDS = tuple(range(128, 300))
# Words that are one token each, with the space before them, in the common vocabularies.
_WORDS = (
    "able also area back been best body book both call case city come cost data does done down "
    "each even ever face fact feel find five food form four free from full game girl give good "
    "half hand hard have head help here high hold home hour idea into just keep kind know land "
    "last late lead left less life like line list live long look love made main make many mean "
    "mind more most move much must name need next note once only open over own page part past "
    "plan play poor read real rest road room rule same seem self sell send show side size some "
    "soon stop such sure take talk tell term than that them then they this time told town tree "
    "true turn unit upon used very view walk wall want week well went were what when will with "
    "word work year"
)
WORDS = tuple(_WORDS.split())
NONCE = 4  # tokens that make each prompt different from the others: 172**4 = 875 million
PATTERN = 16  # tokens after which a repetitive text repeats itself
POOL = 1024  # pairs of lengths that are gone through in turn
RANDOM_TOKENS = 65_536  # tokens that prompts are cut from
MAX_TURNS = 1000


def check(prompts: Prompts) -> None:
    """Raise UsageError when such prompts cannot be made."""
    check_lengths("prompt_tokens", prompts.prompt_tokens)
    check_lengths("output_tokens", prompts.output_tokens)
    check_pauses("think", prompts.think_s)
    if not (
        0 <= prompts.shared_prefix_share <= 1 and 0 <= prompts.shared_prefix_tokens <= MAX_TOKENS
    ):
        raise UsageError("a shared prefix has a share from 0 to 1 and at least 0 tokens")
    if not 1 <= prompts.turns <= MAX_TURNS:
        raise UsageError(f"a conversation has 1 to {MAX_TURNS} turns")
    if prompts.json_schema:
        structured_output.check(prompts.json_schema)
    if prompts.dataset and (prompts.repetitive or prompts.shared_prefix_share):
        raise UsageError(
            "the prompts of a dataset are sent as they are",
            "omit the options for generated prompts: repetitive text, shared prefix",
        )


def prefix_room(prompts: Prompts) -> int | None:
    """Tokens of the longest prompt that can be shared, where the shared prefix is longer than
    that; None where it fits, or none is asked for."""
    lengths = prompts.prompt_tokens
    longest = lengths.highest if isinstance(lengths, LogNormal) else lengths[1]
    room = max(0, int(longest) - NONCE)
    wanted = prompts.shared_prefix_tokens if prompts.shared_prefix_share else 0
    return room if wanted > room else None


class RandomTokens:
    """Tokens at random, encoded once, so that any run of them is a slice."""

    def __init__(self, symbols: Sequence[bytes], tokens: int, chosen: random.Random) -> None:
        found = chosen.choices(symbols, k=tokens)
        self.tokens = tokens
        self._text = b"".join(found)
        self._marks = array("q", accumulate(map(len, found), initial=0))

    def run(self, at: int, count: int) -> bytes:
        """``count`` tokens from ``at`` on; after the last one it starts again."""
        pieces = []
        while count > 0:
            length = min(count, self.tokens - at)
            pieces.append(self._text[self._marks[at] : self._marks[at + length]])
            count, at = count - length, 0
        return b"".join(pieces)


class Bodies:
    """One worker's endless supply of bodies.

    Request k has the same lengths and the same text whatever the number of workers: worker
    ``index`` of ``count`` makes every ``count``-th. A nonce stands right after the shared prefix
    (or first), so that no prompt finds more of itself in an engine's prefix cache than that. The
    nonces begin at a place that depends on the seed. The shortest prompt is a nonce alone, 4
    tokens. entries: a dataset's; they are gone through in turn and sent as they are.
    """

    def __init__(
        self,
        prompts: Prompts,
        target: Target,
        seed: int,
        index: int = 0,
        count: int = 1,
        entries: Sequence[Entry] = (),
    ) -> None:
        self._prompts, self._entries, self._chat = prompts, entries, target.chat
        self._envelope = RequestBody(prompts, target)
        text = prompts.text or target.chat
        # An id brings the comma before it along; the first one of a prompt is cut off again.
        symbols = [f" {word}".encode() for word in WORDS] if text else [b",%d" % i for i in IDS]
        self._symbols, self._first = symbols, 0 if text else 1
        self._frame = b'"%b"' if text else b"[%b]"
        if target.chat:
            self._frame = b'{"role":"user","content":"%b"}'
        chosen = random.Random(f"prompts {seed}")
        self._prefix = RandomTokens(symbols, prompts.shared_prefix_tokens, chosen)
        self._random_tokens = RandomTokens(symbols, RANDOM_TOKENS, chosen)
        self._lengths = list(
            zip(
                draw_tokens(prompts.prompt_tokens, POOL, chosen),
                draw_tokens(prompts.output_tokens, POOL, chosen),
                strict=True,
            )
        )
        places = [chosen.randrange(RANDOM_TOKENS) for _ in range(POOL)]
        shared = int(prompts.shared_prefix_share * POOL + 0.5)
        sharing = chosen.sample([True] * shared + [False] * (POOL - shared), POOL)
        self._manners = list(zip(places, sharing, strict=True))
        self._nonce = chosen.randrange(len(symbols) ** NONCE) + index
        self._turn, self._index, self._count = index, index, count
        self._zero = 0  # number of the request that has the first lengths
        self._pauses = random.Random(f"pauses {seed} {index}")

    def begin(self, arrivals: int) -> None:
        """Go on with the lengths that belong to these arrivals; texts stay new, entries go on."""
        first = random.Random(f"lengths {arrivals}").randrange(POOL)
        self._zero = self._turn - self._index - first

    def next(self, size: Size | None = None) -> bytes:
        """The next body. size: its lengths, where they are not to be those of the prompts."""
        return self._envelope.wrap(*next(self._turns(size)))

    def conversation(self, size: Size | None = None) -> Conversation | None:
        """The next conversation; None when each request stands alone. size: of its first turn."""
        if self._prompts.turns == 1:
            return None
        return Conversation(self._envelope, islice(self._turns(size), self._prompts.turns))

    def pause_ns(self) -> int:
        """How long the user of a conversation thinks this time."""
        return int(draw_pause(self._prompts.think_s, self._pauses) * 1e9)

    def _turns(self, size: Size | None) -> Iterator[Turn]:
        number, self._turn = self._turn, self._turn + self._count
        if self._entries:
            given = size[1] if size is not None else 0
            entry = self._entries[number % len(self._entries)]
            for asked, output in zip(entry.asked, entry.output_tokens, strict=True):
                yield asked, given or output or self._lengths[self._place(number)][1]
            return
        yield self._made(number, size, *self._manners[self._place(number)])
        while True:
            number, self._turn = self._turn, self._turn + self._count
            yield self._made(number, None, self._manners[self._place(number)][0], False)

    def _place(self, number: int) -> int:
        return (number - self._zero) % POOL

    def _made(self, number: int, size: Size | None, at: int, shared: bool) -> Turn:
        length, output = self._lengths[self._place(number)]
        if size is not None:
            length, output = size[0] or length, size[1] or output
        before = min(self._prefix.tokens if shared else 0, max(0, length - NONCE))
        rest = max(0, length - before - NONCE)
        if self._prompts.repetitive:
            pattern = self._random_tokens.run(at, min(PATTERN, max(1, rest)))
            times, left = divmod(rest, PATTERN)
            tail = pattern * times + self._random_tokens.run(at, left)
        else:
            tail = self._random_tokens.run(at, rest)
        text = b"".join((self._prefix.run(0, before), self._next_nonce(), tail))
        return self._frame % text[self._first :], output

    def _next_nonce(self) -> bytes:
        nonce, self._nonce = self._nonce, self._nonce + self._count
        digits = []
        for _ in range(NONCE):
            nonce, digit = divmod(nonce, len(self._symbols))
            digits.append(self._symbols[digit])
        return b"".join(digits)
