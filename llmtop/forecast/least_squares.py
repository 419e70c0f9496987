"""Robust least squares for a few coefficients, with their covariance."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from operator import mul
from statistics import median

from msgspec import Struct

HUBER_BOUND = 2.0  # in robust standard deviations
ROUNDS = 8  # of iteratively reweighted least squares
LEAST_SHARE = 0.5  # of the fitted value: smaller values get no larger weight
TO_SIGMA = 1.4826  # from a median absolute deviation to a standard deviation (normal distribution)
RIDGE = 1e-9  # added to the diagonal, so that the matrix can be inverted

Matrix = list[list[float]]


class Regression(Struct, frozen=True):
    """Coefficients, and the lower Cholesky triangle of their covariance."""

    coefficients: tuple[float, ...]
    triangle: tuple[tuple[float, ...], ...]

    def draw(self, rng: random.Random, widen: float = 1.0) -> tuple[float, ...]:
        """Draw coefficients from their normal distribution. widen: factor of the deviations."""
        normals = [rng.gauss(0.0, widen) for _ in self.coefficients]
        return tuple(
            value + sum(a * b for a, b in zip(row, normals, strict=False))
            for value, row in zip(self.coefficients, self.triangle, strict=True)
        )


def regress(rows: Sequence[Sequence[float]], values: Sequence[float]) -> Regression:
    """Huber's estimate. The weight of a value is one over its square root.

    With relative errors, small values would dominate the fit; with absolute errors, large ones
    would. A value far below the fit gets the weight of one at half of the fit. Otherwise the short
    steps after a stall of the machine would dominate.
    """
    scaled = _scaled(rows)
    least = LEAST_SHARE * median(map(abs, values))
    base = [1.0 / math.sqrt(max(value, least, 1e-4)) for value in values]
    weights = list(base)
    fit: list[float] = []
    for _ in range(ROUNDS):
        fit = _solve(*_normal_equations(scaled.rows, values, weights))
        floors = [LEAST_SHARE * _dot(fit, row) for row in scaled.rows]
        base = [
            1.0 / math.sqrt(max(value, floor, 1e-4))
            for value, floor in zip(values, floors, strict=True)
        ]
        errors = [
            abs(v - _dot(fit, row)) * w for row, v, w in zip(scaled.rows, values, base, strict=True)
        ]
        bound = HUBER_BOUND * TO_SIGMA * median(errors) + 1e-12
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
    """Scale the columns to a maximum of 1, for a well-conditioned matrix. units: the factors."""
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
    """Gauss-Jordan elimination. The matrix is positive definite, so no pivoting is needed."""
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
