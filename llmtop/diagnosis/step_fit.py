"""The time of a step as a function of what is in it, fitted to an engine's own steps. Pure.

``seconds = fixed + per_request * requests + per_token * prompt and draft tokens``, by least squares
of absolute errors: those of relative errors lose the prefill term (docs/explanation/why.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul

from msgspec import Struct

from llmtop.engines.core.steps import Step
from llmtop.values import replace

LEAST = 60  # steps
LEAST_PREFILLS = 8  # steps with prompt or draft tokens, for a cost per token
# Of the number of requests, 10th to 90th percentile. With less, two terms cannot be distinguished.
LARGEST = 8  # requests in a step: what fewer of them add is less than the noise of a busy host
SPREAD = 0.25
WORST = 0.25  # median relative error of a fit that is used
TRIMMED = 0.02  # of the steps at most are left out as outliers: a stall is no cost of its content


class StepFit(Struct, frozen=True):
    """The fitted terms, seconds. per_token: None where too few steps had prompt or draft tokens.

    draft_s: by draft token, 0.0 where drafts fit beside the reading of the weights.
    error: median relative error over its own steps. n: how many these are.
    """

    fixed_s: float
    per_request_s: float
    per_token_s: float | None
    error: float
    n: int
    draft_s: float = 0.0

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


def fit(steps: Sequence[Step]) -> StepFit | None:
    """The fit; None where the steps do not allow one."""
    useful = [step for step in steps if step.requests > 0 and step.duration_s > 0]
    if len(useful) < LEAST:
        return None
    counts = sorted(step.requests for step in useful)
    low, middle, high = (counts[int(q * (len(counts) - 1))] for q in (0.1, 0.5, 0.9))
    if high < LARGEST or high - low < max(2.0, SPREAD * middle):
        return None
    if any(step.draft_tokens for step in useful):
        found = _fit([_row(step, extra_tokens(step)) for step in useful])
        if found is not None and found.per_token_s is not None:
            return replace(found, draft_s=found.per_token_s)
    return _fit([_row(step, step.prefill_tokens) for step in useful])


def _row(step: Step, tokens: int) -> Row:
    seconds = step.duration_s - (step.host_gap_s or 0.0)
    return 1.0, float(step.requests), float(tokens), seconds


def _fit(rows: list[Row]) -> StepFit | None:
    with_tokens = sum(row[2] > row[1] * 0.5 for row in rows) >= LEAST_PREFILLS
    columns = 3 if with_tokens else 2
    if not with_tokens:
        rows = [row for row in rows if row[2] == 0]
    found = _solve(rows, columns) if len(rows) >= LEAST else None
    if found is None:
        return None
    found = _solve(_trimmed(rows, found), columns) or found
    if found[1] < 0 and columns == 3:
        # Few requests cost next to nothing beside the weights, and a large batch was not seen.
        pair = _solve([(one, tokens, 0.0, seconds) for one, _, tokens, seconds in rows], 2)
        found = [pair[0], 0.0, pair[1]] if pair is not None else found
    fixed, each, token = found[0], found[1], found[2] if columns == 3 else None
    if fixed <= 0 or each < 0 or (token is not None and token <= 0):
        return None
    errors = sorted(
        error / row[3] for error, row in zip(_errors(found, rows), rows, strict=True) if row[3] > 0
    )
    error = errors[len(errors) // 2] if errors else 1.0
    return StepFit(fixed, each, token, error, len(rows)) if error <= WORST else None


Row = tuple[float, float, float, float]


def _errors(terms: Sequence[float], rows: Sequence[Row]) -> list[float]:
    """How far each row is from its fit, seconds."""
    if len(terms) == 2:
        fixed, first = terms
        return [abs(fixed * one + first * a - seconds) for one, a, _, seconds in rows]
    fixed, first, second = terms
    return [abs(fixed * one + first * a + second * b - seconds) for one, a, b, seconds in rows]


def _trimmed(rows: Sequence[Row], terms: Sequence[float]) -> list[Row]:
    errors = _errors(terms, rows)
    worst = sorted(range(len(rows)), key=errors.__getitem__)
    return [rows[place] for place in worst[: len(worst) - int(TRIMMED * len(worst))]]


def _solve(rows: Sequence[Row], columns: int) -> list[float] | None:
    """Least squares by the normal equations, columns scaled to their largest value."""
    terms = list(zip(*rows, strict=True)) or [()] * 4
    scale = [max(terms[c], default=0.0) or 1.0 for c in range(columns)]
    scaled = [[value / scale[c] for value in terms[c]] for c in range(columns)]
    matrix = [
        [*(sum(map(mul, column, other)) for other in scaled), sum(map(mul, column, terms[3]))]
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
