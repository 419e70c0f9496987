"""The time of a step as a function of what is in it, fitted to an engine's own steps. Pure.

``seconds = fixed + per_request * requests + per_token * prompt and draft tokens``, by least squares
of absolute errors: those of relative errors lose the prefill term (docs/explanation/why.md). Where
the cost of contexts can be told, ``per_context * context tokens`` is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul

from msgspec import Struct

from llmtop.diagnosis.context_cost import context_cost, device_s
from llmtop.engines.core.steps import Step
from llmtop.values import replace

LEAST = 60  # steps
MOST_NEWEST = 256  # of the present load, in a fit beside the cost of contexts
LEAST_PREFILLS = 8  # steps with prompt or draft tokens, for a cost per token
# Of the number of requests, 10th to 90th percentile. With less, two terms cannot be distinguished.
FEW = 32  # requests in most steps: fewer may cost next to nothing
LARGEST = 8  # requests in a step: what fewer of them add is less than the noise of a busy host
SPREAD = 0.25
WORST = 0.25  # median relative error of a fit that is used
CONTEXTS = 1.5  # mean context of a request, 90th over 10th percentile, from which on it has a term
UNUSUAL, ROUNDS = 0.2, 4  # of the steps without prompt tokens: one beside a full prefill is longer
TRIMMED = 0.02  # of the steps at most are left out as outliers: a stall is no cost of its content


class StepFit(Struct, frozen=True):
    """The fitted terms, seconds. per_token: None where too few steps had prompt or draft tokens.

    draft_s: by draft token, 0.0 where drafts fit beside the reading of the weights.
    error: median relative error over its own steps. n: how many these are.
    per_context_s: by token of context; 0.0 where it is within per_request_s.
    """

    fixed_s: float
    per_request_s: float
    per_token_s: float | None
    error: float
    n: int
    draft_s: float = 0.0
    per_context_s: float = 0.0

    def at(self, context: float | None) -> StepFit:
        """The fit for requests of this mean context: what reading it costs is a request's."""
        if not self.per_context_s:
            return self
        each = self.per_request_s + self.per_context_s * (context or 0.0)
        return replace(self, per_request_s=each, per_context_s=0.0)

    def seconds(self, requests: float, tokens: float = 0.0) -> float:
        """The time of a step. tokens: prompt tokens and drafts, beyond one for each request."""
        return self.fixed_s + self.per_request_s * requests + (self.per_token_s or 0.0) * tokens

    def per_stream_s(self, tokens_per_request: float) -> float:
        """By how much one more running request lengthens each step, its prefills included."""
        return self.per_request_s + (self.per_token_s or 0.0) * tokens_per_request

    def growing(self, requests: float, tokens_per_request: float) -> float:
        """The share of a step that grows with the load, 0..1. At 0.7, twice the requests bring 18 %
        more tokens; at 0.85, 8 %."""
        grows = self.per_stream_s(tokens_per_request) * requests
        return grows / (self.fixed_s + grows) if grows > 0 else 0.0

    def throughput(self, requests: float, tokens_per_request: float) -> float:
        """Requests times steps a second: output tokens a second without speculation."""
        seconds = self.fixed_s + self.per_stream_s(tokens_per_request) * requests
        return requests / seconds if seconds > 0 else 0.0


def extra_tokens(step: Step) -> int:
    """Tokens of a step beyond one for each decoding request: prompt tokens and drafts."""
    return step.prefill_tokens + (step.draft_tokens or 0)


def mean_context(steps: Sequence[Step]) -> float | None:
    """Tokens that a request attends to, mean over the steps; None where unknown."""
    known = [step for step in steps if step.context_tokens is not None]
    requests = sum(step.requests for step in known)
    return sum(step.context_tokens or 0 for step in known) / requests if requests else None


def fit(steps: Sequence[Step], newest: Sequence[Step] = ()) -> StepFit | None:
    """The fit; None where the steps do not allow one.

    newest: consecutive steps of the present load. The cost of contexts is learned from them where
    it is large; without them, from ``steps``.
    """
    useful = [step for step in steps if step.requests > 0 and step.duration_s > 0]
    cost = context_cost(newest or useful)
    if cost is not None:
        found = _beside_context([*useful, *newest[-MOST_NEWEST:]], cost)
        if found is not None:
            return found
    if len(useful) < LEAST:
        return None
    if not _counts_differ([step.requests for step in useful]):
        return None
    return (_by_context(useful) if _contexts_differ(useful) else None) or _by_requests(useful)


def _beside_context(steps: Sequence[Step], cost: float) -> StepFit | None:
    """The fit of what is left of the steps' time beside their contexts, of a known cost a token.

    Where all steps have about as many requests, the rest of the time is taken as fixed.
    """
    if any(step.context_tokens is None for step in steps):
        return None
    rows: list[Row] = [
        (
            1.0,
            float(s.requests),
            float(s.prefill_tokens),
            device_s(s) - cost * (s.context_tokens or 0),
        )
        for s in steps
        if s.requests > 0 and s.duration_s > 0 and not s.draft_tokens
    ]
    plain = sorted(row[-1] for row in rows if row[2] == 0)
    if len(plain) < LEAST or plain[len(plain) // 10] <= 0:
        return None
    found = _fit(rows) if _counts_differ([row[1] for row in rows if row[2] == 0]) else None
    if found is None:
        rest = plain[len(plain) // 2]
        errors = sorted(abs(one - rest) for one in plain)
        error = errors[len(errors) // 2] / rest
        if error > WORST:
            return None
        found = StepFit(rest, 0.0, _token_cost(rows, rest), error, len(rows))
    return replace(found, per_context_s=cost)


def _token_cost(rows: Sequence[Row], fixed: float) -> float | None:
    """Seconds for a prompt token beyond the fixed time; None where too few steps have any."""
    with_prompt = [(row[2], row[-1] - fixed) for row in rows if row[2] > 0]
    if len(with_prompt) < LEAST_PREFILLS:
        return None
    return _through_origin(with_prompt)


def _through_origin(pairs: Sequence[tuple[float, float]]) -> float:
    """The slope of the line through the origin, by least squares."""
    return sum(x * y for x, y in pairs) / sum(x * x for x, _ in pairs)


def _counts_differ(requests: Sequence[float]) -> bool:
    """Whether the numbers of requests differ so much that their cost can be told apart."""
    counts = sorted(requests)
    low, middle, high = (counts[int(q * (len(counts) - 1))] for q in (0.1, 0.5, 0.9))
    return high >= LARGEST and high - low >= max(2.0, SPREAD * middle)


def _contexts_differ(steps: Sequence[Step]) -> bool:
    """Whether the context of a request differs so much that its cost can be told apart."""
    if any(step.context_tokens is None for step in steps):
        return False
    means = sorted((step.context_tokens or 0) / step.requests for step in steps)
    low, high = (means[int(q * (len(means) - 1))] for q in (0.1, 0.9))
    return high >= CONTEXTS * max(low, 1.0)


def _by_context(steps: Sequence[Step]) -> StepFit | None:
    """The fit with a term for contexts; None where it would be below zero, or drafts are among
    the tokens."""
    if any(step.draft_tokens for step in steps):
        return None
    found = _fit(
        [
            (
                1.0,
                float(s.requests),
                float(s.context_tokens or 0),
                float(s.prefill_tokens),
                device_s(s),
            )
            for s in steps
        ]
    )
    return found if found is not None and found.per_context_s > 0 else None


def _by_requests(steps: Sequence[Step]) -> StepFit | None:
    if any(step.draft_tokens for step in steps):
        found = _fit([_row(step, extra_tokens(step)) for step in steps])
        if found is not None and found.per_token_s is not None:
            return replace(found, draft_s=found.per_token_s)
    return _fit([_row(step, step.prefill_tokens) for step in steps])


def _row(step: Step, tokens: int) -> Row:
    return 1.0, float(step.requests), float(tokens), device_s(step)


def _fit(rows: list[Row]) -> StepFit | None:
    """The fit of rows of one, requests, perhaps context, prompt tokens, and the seconds."""
    place = len(rows[0]) - 2  # of the prompt tokens
    with_tokens = sum(row[place] > row[1] * 0.5 for row in rows) >= LEAST_PREFILLS
    columns = place + 1 if with_tokens else place
    if not with_tokens:
        rows = [row for row in rows if row[place] == 0]
    found = _solved(rows, columns) if len(rows) >= LEAST else None
    if found is None:
        return None
    if with_tokens:
        found = _apart(rows, place) or found
    few = sorted(row[1] for row in rows)[len(rows) // 2] < FEW
    if found[1] < 0 and with_tokens and place == 2 and few:
        # Few requests cost next to nothing beside the weights, and a large batch was not seen.
        pair = _solve([(one, tokens, 0.0, seconds) for one, _, tokens, seconds in rows], 2)
        found = [pair[0], 0.0, pair[1]] if pair is not None else found
    fixed, each, token = found[0], found[1], found[place] if with_tokens else None
    context = found[2] if place == 3 else 0.0
    if fixed <= 0 or each < 0 or context < 0 or (token is not None and token <= 0):
        return None
    errors = sorted(
        error / row[-1]
        for error, row in zip(_errors(found, rows), rows, strict=True)
        if row[-1] > 0
    )
    error = errors[len(errors) // 2] if errors else 1.0
    if error > WORST:
        return None
    return StepFit(fixed, each, token, error, len(rows), per_context_s=context)


def _solved(rows: Sequence[Row], columns: int) -> list[float] | None:
    """The terms, without the few steps that are furthest from them."""
    found = _solve(rows, columns)
    return (_solve(_trimmed(rows, found), columns) or found) if found is not None else None


def _apart(rows: Sequence[Row], place: int) -> list[float] | None:
    """The terms of decoding from steps without prompt tokens alone, then that of a token from the
    others: a step with a full prefill takes 30 times as long, and its errors would hide those of
    the rest. None where the steps without prompt tokens do not tell."""
    plain = [row for row in rows if row[place] == 0]
    if len(plain) < LEAST or not _counts_differ([row[1] for row in plain]):
        return None
    found = None
    for _ in range(ROUNDS):
        found = _solve(_trimmed(plain, found, UNUSUAL) if found else plain, place) or found
    if found is None or found[0] <= 0 or min(found[1:]) < 0:
        return None
    rest = [(row[place], row[-1] - sum(map(mul, found, row))) for row in rows if row[place] > 0]
    return [*found, _through_origin(rest)]


Row = tuple[float, ...]
"""The terms of a step, and its seconds."""


def _errors(terms: Sequence[float], rows: Sequence[Row]) -> list[float]:
    """How far each row is from its fit, seconds."""
    return [abs(sum(map(mul, terms, row)) - row[-1]) for row in rows]


def _trimmed(rows: Sequence[Row], terms: Sequence[float], share: float = TRIMMED) -> list[Row]:
    errors = _errors(terms, rows)
    worst = sorted(range(len(rows)), key=errors.__getitem__)
    return [rows[place] for place in worst[: len(worst) - int(share * len(worst))]]


def _solve(rows: Sequence[Row], columns: int) -> list[float] | None:
    """Least squares by the normal equations, columns scaled to their largest value."""
    terms = list(zip(*rows, strict=True))
    seconds = terms[-1]
    scale = [max(terms[c], default=0.0) or 1.0 for c in range(columns)]
    scaled = [[value / scale[c] for value in terms[c]] for c in range(columns)]
    matrix = [
        [*(sum(map(mul, column, other)) for other in scaled), sum(map(mul, column, seconds))]
        for column in scaled
    ]
    for i in range(columns):
        pivot = max(range(i, columns), key=lambda r: abs(matrix[r][i]))
        if abs(matrix[pivot][i]) < 1e-9 * len(rows):
            return None
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        for other in range(columns):
            if other != i:
                factor = matrix[other][i] / matrix[i][i]
                matrix[other] = [
                    a - factor * b for a, b in zip(matrix[other], matrix[i], strict=True)
                ]
    return [matrix[i][columns] / matrix[i][i] / scale[i] for i in range(columns)]
