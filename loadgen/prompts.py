"""What is asked: request bodies, encoded before the run, so that sending one costs little."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from llmtop import UsageError
from llmtop.loadgen.plan import Prompts, Target

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
MAX_POOL = 256
MAX_POOL_TOKENS = 2_000_000  # some 8 MB of bodies in each worker

_MARK = "@@nonce@@"


@dataclass(frozen=True, slots=True)
class Template:
    """A body with a hole for its nonce."""

    head: bytes
    tail: bytes


def check(prompts: Prompts) -> None:
    """Raise UsageError when such prompts cannot be made."""
    for name, (low, high) in (
        ("prompt_tokens", prompts.prompt_tokens),
        ("output_tokens", prompts.output_tokens),
    ):
        if not 1 <= low <= high <= MAX_POOL_TOKENS:
            raise UsageError(
                f"{name} {low}..{high} is no range of lengths", "for example 128..256, from 1 up"
            )
    if not 0 <= prompts.shared_prefix_share <= 1 or prompts.shared_prefix_tokens < 0:
        raise UsageError("a shared prefix has a share from 0 to 1 and at least 0 tokens")


class Bodies:
    """One worker's endless supply of bodies: a pool that is walked in turn, a new nonce each time.

    The nonce stands right after the shared prefix (or first), so that no prompt finds more of
    itself in an engine's prefix cache than the shared prefix. Worker ``index`` of ``count`` uses
    every ``count``-th nonce. The nonces begin at a place that depends on the seed. The shortest
    prompt is a nonce alone, 4 tokens.
    """

    def __init__(
        self, prompts: Prompts, target: Target, seed: int, index: int = 0, count: int = 1
    ) -> None:
        self._text = prompts.text or target.chat
        self._symbols = [f" {word}" for word in WORDS] if self._text else [str(i) for i in IDS]
        self._encoded = [symbol.encode() for symbol in self._symbols]
        chosen = random.Random(f"prompts {seed}")
        prefix = self._run(chosen, prompts.shared_prefix_tokens)
        longest = max(1, prompts.prompt_tokens[1] + prompts.output_tokens[1])
        size = max(8, min(MAX_POOL, MAX_POOL_TOKENS // longest))
        # All workers share the prefix; their own texts differ.
        own = random.Random(f"prompts {seed} {index}/{count}")
        self._pool = [self._template(prompts, target, prefix, own) for _ in range(size)]
        self._nonce = chosen.randrange(len(self._symbols) ** NONCE) + index
        self._count = count
        self._turn = 0

    def next(self) -> bytes:
        """The next body."""
        template = self._pool[self._turn]
        self._turn = (self._turn + 1) % len(self._pool)
        nonce, self._nonce = self._nonce, self._nonce + self._count
        parts = []
        for _ in range(NONCE):
            nonce, digit = divmod(nonce, len(self._encoded))
            parts.append(self._encoded[digit])
        return b"".join((template.head, (b"" if self._text else b",").join(parts), template.tail))

    def _run(self, chosen: random.Random, tokens: int) -> list[str]:
        return chosen.choices(self._symbols, k=tokens)

    def _template(
        self, prompts: Prompts, target: Target, prefix: list[str], chosen: random.Random
    ) -> Template:
        length = chosen.randint(*prompts.prompt_tokens)
        output = chosen.randint(*prompts.output_tokens)
        shared = prefix if chosen.random() < prompts.shared_prefix_share else []
        shared = shared[: max(0, length - NONCE)]
        rest = max(0, length - len(shared) - NONCE)
        if prompts.repetitive:
            pattern = self._run(chosen, min(PATTERN, max(1, rest)))
            tail = (pattern * (rest // len(pattern) + 1))[:rest]
        else:
            tail = self._run(chosen, rest)
        body: dict[str, object] = {
            "model": target.model,
            "max_tokens": output,
            "temperature": prompts.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
            # Not min_tokens as well: it changes the logits on every step and does not go
            # together with speculation in vLLM.
            "ignore_eos": True,
        }
        if self._text:
            content = "".join((*shared, _MARK, *tail))
            body |= (
                {"messages": [{"role": "user", "content": content}]}
                if target.chat
                else {"prompt": content}
            )
            head, _, end = json.dumps(body).rpartition(_MARK)
            return Template(head.encode(), end.encode())
        body["prompt"] = [_MARK]
        head, _, end = json.dumps(body).rpartition(f'"{_MARK}"')
        before, after = "".join(f"{i}," for i in shared), "".join(f",{i}" for i in tail)
        return Template((head + before).encode(), (after + end).encode())
