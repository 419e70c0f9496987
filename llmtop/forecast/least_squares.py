"""Robust least squares for a handful of coefficients, with their covariance."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from operator import mul
from statistics import median

from msgspec import Struct

TUNING = 2.0  # Huber's bound, in robust standard deviations
ROUNDS = 8
HALF = 0.5
TO_SIGMA = 1.4826  # from a median absolute deviation to a standard deviation
RIDGE = 1e-9

Matrix = list[list[float]]


class Regression(Struct, frozen=True):
    """The coefficients, and the lower triangle whose product with itself is their covariance."""

    coefficients: tuple[float, ...]
    triangle: tuple[tuple[float, ...], ...]

    def drawn(self, rng: random.Random, widen: float = 1.0) -> tuple[float, ...]:
        """Coefficients as another sample of the same kind might have given them."""
        normals = [rng.gauss(0.0, widen) for _ in self.coefficients]
        return tuple(
            value + sum(a * b for a, b in zip(row, normals, strict=False))
            for value, row in zip(self.coefficients, self.triangle, strict=True)
        )


def regress(rows: Sequence[Sequence[float]], values: Sequence[float]) -> Regression:
    """Huber's estimate. Each error is measured against the square root of its value.

    Relative errors would lose what only the large values show; plain ones what the small ones do.
    A value far below the fit counts no more than one at half of it: what was caught up after a
    stall of the machine would decide else.
    """
    scaled = _scaled(rows)
    least = HALF * median(map(abs, values))
    base = [1.0 / math.sqrt(max(value, least, 1e-4)) for value in values]
    weights = list(base)
    fit: list[float] = []
    for _ in range(ROUNDS):
        fit = _solve(*_normal_equations(scaled.rows, values, weights))
        floors = [HALF * _dot(fit, row) for row in scaled.rows]
        base = [
            1.0 / math.sqrt(max(value, floor, 1e-4))
            for value, floor in zip(values, floors, strict=True)
        ]
        errors = [
            abs(v - _dot(fit, row)) * w for row, v, w in zip(scaled.rows, values, base, strict=True)
        ]
        bound = TUNING * TO_SIGMA * median(errors) + 1e-12
        weights = [
            w * math.sqrt(min(1.0, bound / max(e, 1e-15)))
            for w, e in zip(base, errors, strict=True)
        ]
    errors = [
        (v - _dot(fit, row)) * w for row, v, w in zip(scaled.rows, values, weights, strict=True)
    ]
    free = max(1, len(values) - len(fit))
    variance = sum(error * error for error in errors) / free
    matrix, _ = _normal_equations(scaled.rows, values, weights)
    triangle = _cholesky(_inverse(matrix), variance)
    units = scaled.units
    return Regression(
        tuple(value / unit for value, unit in zip(fit, units, strict=True)),
        tuple(
            tuple(value / unit for value in row) for row, unit in zip(triangle, units, strict=True)
        ),
    )


class _Scaled(Struct, frozen=True):
    rows: list[list[float]]
    units: list[float]


def _scaled(rows: Sequence[Sequence[float]]) -> _Scaled:
    """Columns of about 1, so that tokens and seconds stand beside each other in one matrix."""
    units = [max(max(abs(value) for value in column), 1e-12) for column in zip(*rows, strict=True)]
    inverse = [1.0 / unit for unit in units]
    return _Scaled(
        [[v * i for v, i in zip(row, inverse, strict=True)] for row in rows],
        units,
    )


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return float(sum(map(mul, a, b)))


def _normal_equations(
    rows: Sequence[Sequence[float]], values: Sequence[float], weights: Sequence[float]
) -> tuple[Matrix, list[float]]:
    n = len(rows[0])
    matrix = [[RIDGE if i == j else 0.0 for j in range(n)] for i in range(n)]
    right = [0.0] * n
    for row, value, weight in zip(rows, values, weights, strict=True):
        square = weight * weight
        for i in range(n):
            heavy = square * row[i]
            right[i] += heavy * value
            for j in range(i + 1):
                matrix[i][j] += heavy * row[j]
    for i in range(n):
        for j in range(i + 1, n):
            matrix[i][j] = matrix[j][i]
    return matrix, right


def _solve(matrix: Matrix, right: Sequence[float]) -> list[float]:
    return [_dot(row, right) for row in _inverse(matrix)]


def _inverse(matrix: Matrix) -> Matrix:
    """By Gauss and Jordan; the matrix is positive definite, so it needs no pivots."""
    n = len(matrix)
    left = [list(row) for row in matrix]
    right = [[1.0 if i == j else 0.0 for j in range(n)] for i in range(n)]
    for i in range(n):
        pivot = left[i][i] or 1e-300
        left[i] = [value / pivot for value in left[i]]
        right[i] = [value / pivot for value in right[i]]
        for k in range(n):
            if k != i and left[k][i]:
                factor = left[k][i]
                left[k] = [a - factor * b for a, b in zip(left[k], left[i], strict=True)]
                right[k] = [a - factor * b for a, b in zip(right[k], right[i], strict=True)]
    return right


def _cholesky(matrix: Matrix, scale: float) -> Matrix:
    n = len(matrix)
    lower = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            rest = scale * matrix[i][j] - _dot(lower[i][:j], lower[j][:j])
            if i == j:
                lower[i][i] = math.sqrt(max(rest, 0.0))
            elif lower[j][j] > 0:
                lower[i][j] = rest / lower[j][j]
    return lower
