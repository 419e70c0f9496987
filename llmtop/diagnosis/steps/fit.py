"""Fits the time of a step to its contents, from an engine's own steps. Pure.

    seconds = fixed + per_request * requests + per_token * (prompt + draft tokens)

The fit minimizes the squares of absolute errors. Squares of relative errors would lose the prefill
term (docs/explanation/why.md). If the cost of contexts can be estimated, the term
``per_context * context tokens`` is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul

from msgspec import Struct

from llmtop.diagnosis.steps.context_cost import context_cost, device_s
from llmtop.engines.core.steps import Step
from llmtop.values import replace

LEAST = 60  # steps that a fit needs
MOST_NEWEST = 256  # steps of the present load in a fit with a known cost of contexts
LEAST_PREFILLS = 8  # steps with prompt or draft tokens that a cost per token needs
FEW = 32  # requests in the median step: the cost of fewer can be too small to be measured
# The 90th percentile of the number of requests in a step must reach this. The time that fewer
# requests add is less than the noise of a busy host.
LEAST_REQUESTS = 8
# The number of requests must differ from the 10th to the 90th percentile by this share of the
# median. Otherwise the fixed term and the term per request cannot be distinguished.
SPREAD = 0.25
WORST = 0.25  # median relative error up to which a fit is used
CONTEXTS = 1.5  # ratio of the 90th to the 10th percentile of mean contexts that needs a term
# Share of the decode steps that is trimmed as outliers, and rounds of trimming. A decode step next
# to a full prefill takes longer than usual.
UNUSUAL, ROUNDS = 0.2, 4
TRIMMED = 0.02  # share of the steps that is trimmed as outliers: a stall is no cost of the contents


class StepFit(Struct, frozen=True):
    """The fitted terms, in seconds.

    per_token_s: None where too few steps had prompt or draft tokens. error: median relative error
    over the fitted steps. n: their number. draft_s: per draft token; 0.0 where drafts take no
    measurable time beside the reading of the weights. per_context_s: per token of context; 0.0
    where it is part of per_request_s.
    """

    fixed_s: float
    per_request_s: float
    per_token_s: float | None
    error: float
    n: int
    draft_s: float = 0.0
    per_context_s: float = 0.0

    def at(self, context: float | None) -> StepFit:
        """The fit for requests with this mean context, in tokens: per_request_s then includes the
        cost of the context."""
        if not self.per_context_s:
            return self
        each = self.per_request_s + self.per_context_s * (context or 0.0)
        return replace(self, per_request_s=each, per_context_s=0.0)

    def seconds(self, requests: float, tokens: float = 0.0) -> float:
        """The time of a step. tokens: prompt and draft tokens, without the one of each request."""
        return self.fixed_s + self.per_request_s * requests + (self.per_token_s or 0.0) * tokens

    def per_stream_s(self, tokens_per_request: float) -> float:
        """The seconds by which one more running request lengthens each step.

        tokens_per_request: prompt and draft tokens in a step for each running request.
        """
        return self.per_request_s + (self.per_token_s or 0.0) * tokens_per_request

    def growing(self, requests: float, tokens_per_request: float) -> float:
        """The share of a step's time that grows with the load, 0..1. At 0.7, twice the requests
        give 18 % more tokens; at 0.85, 8 %."""
        grows = self.per_stream_s(tokens_per_request) * requests
        return grows / (self.fixed_s + grows) if grows > 0 else 0.0

    def throughput(self, requests: float, tokens_per_request: float) -> float:
        """Requests times steps per second: output tokens per second without speculation."""
        seconds = self.fixed_s + self.per_stream_s(tokens_per_request) * requests
        return requests / seconds if seconds > 0 else 0.0


def extra_tokens(step: Step) -> int:
    """Tokens of a step beyond one for each decoding request: prompt tokens and drafts."""
    return step.prefill_tokens + (step.draft_tokens or 0)


def mean_context(steps: Sequence[Step]) -> float | None:
    """The mean number of context tokens of a request, over all steps; None for unknown."""
    known = [step for step in steps if step.context_tokens is not None]
    requests = sum(step.requests for step in known)
    return sum(step.context_tokens or 0 for step in known) / requests if requests else None


def fit(steps: Sequence[Step], newest: Sequence[Step] = ()) -> StepFit | None:
    """The fit of these steps; None where they are too few or too similar, or the fit is poor.

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
    """The fit of the steps' time without the time of their contexts.

    cost: seconds for one token of context. Where all steps have about equally many requests, the
    remaining time is taken as fixed.
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
    """The seconds of a prompt token, above the fixed time; None where too few steps have any."""
    with_prompt = [(row[2], row[-1] - fixed) for row in rows if row[2] > 0]
    if len(with_prompt) < LEAST_PREFILLS:
        return None
    return _through_origin(with_prompt)


def _through_origin(pairs: Sequence[tuple[float, float]]) -> float:
    """The slope of the line through the origin, by least squares."""
    return sum(x * y for x, y in pairs) / sum(x * x for x, _ in pairs)


def _counts_differ(requests: Sequence[float]) -> bool:
    """Whether the numbers of requests differ enough to estimate the cost of a request."""
    counts = sorted(requests)
    low, middle, high = (counts[int(q * (len(counts) - 1))] for q in (0.1, 0.5, 0.9))
    return high >= LEAST_REQUESTS and high - low >= max(2.0, SPREAD * middle)


def _contexts_differ(steps: Sequence[Step]) -> bool:
    """Whether the mean contexts differ enough to estimate the cost of a context token."""
    if any(step.context_tokens is None for step in steps):
        return False
    means = sorted((step.context_tokens or 0) / step.requests for step in steps)
    low, high = (means[int(q * (len(means) - 1))] for q in (0.1, 0.9))
    return high >= CONTEXTS * max(low, 1.0)


def _by_context(steps: Sequence[Step]) -> StepFit | None:
    """The fit with a term for contexts; None where that term is not positive, or the steps have
    draft tokens."""
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
    """The fit of these rows; None where there is none. The columns are 1, requests, context tokens
    (optional), prompt tokens, seconds."""
    tokens_at = len(rows[0]) - 2  # the column of the prompt tokens
    with_tokens = sum(row[tokens_at] > row[1] * 0.5 for row in rows) >= LEAST_PREFILLS
    columns = tokens_at + 1 if with_tokens else tokens_at
    if not with_tokens:
        rows = [row for row in rows if row[tokens_at] == 0]
    found = _solve_trimmed(rows, columns) if len(rows) >= LEAST else None
    if found is None:
        return None
    if with_tokens:
        found = _solve_separately(rows, tokens_at) or found
    few = sorted(row[1] for row in rows)[len(rows) // 2] < FEW
    if found[1] < 0 and with_tokens and tokens_at == 2 and few:
        # Without a large batch, the cost of a request is below the noise. It is set to 0.
        pair = _solve([(one, tokens, 0.0, seconds) for one, _, tokens, seconds in rows], 2)
        found = [pair[0], 0.0, pair[1]] if pair is not None else found
    fixed, each, token = found[0], found[1], found[tokens_at] if with_tokens else None
    context = found[2] if tokens_at == 3 else 0.0
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


def _solve_trimmed(rows: Sequence[Row], columns: int) -> list[float] | None:
    """The terms, fitted again without the few steps that have the largest errors."""
    found = _solve(rows, columns)
    return (_solve(_trimmed(rows, found), columns) or found) if found is not None else None


def _solve_separately(rows: Sequence[Row], tokens_at: int) -> list[float] | None:
    """The decode terms from steps without prompt tokens, then the token term from the other steps.

    A step with a full prefill takes 30 times as long as a decode step. In a common fit its errors
    would outweigh those of the decode steps. None where the decode steps alone do not give terms.
    """
    plain = [row for row in rows if row[tokens_at] == 0]
    if len(plain) < LEAST or not _counts_differ([row[1] for row in plain]):
        return None
    found = None
    for _ in range(ROUNDS):
        found = _solve(_trimmed(plain, found, UNUSUAL) if found else plain, tokens_at) or found
    if found is None or found[0] <= 0 or min(found[1:]) < 0:
        return None
    rest = [
        (row[tokens_at], row[-1] - sum(map(mul, found, row))) for row in rows if row[tokens_at] > 0
    ]
    return [*found, _through_origin(rest)]


Row = tuple[float, ...]
"""One step: the values that the terms are multiplied by, then its seconds."""


def _errors(terms: Sequence[float], rows: Sequence[Row]) -> list[float]:
    """The absolute error of each row, in seconds."""
    return [abs(sum(map(mul, terms, row)) - row[-1]) for row in rows]


def _trimmed(rows: Sequence[Row], terms: Sequence[float], share: float = TRIMMED) -> list[Row]:
    errors = _errors(terms, rows)
    order = sorted(range(len(rows)), key=errors.__getitem__)
    return [rows[index] for index in order[: len(order) - int(share * len(order))]]


def _solve(rows: Sequence[Row], columns: int) -> list[float] | None:
    """Least squares over the first ``columns`` columns, by the normal equations and Gauss-Jordan
    elimination. Each column is scaled by its largest value. None for a singular matrix."""
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
