"""Activations with their first two derivatives, compiled so that they work on many numbers at once.

In single precision they are rational functions and an exponential made of multiplications, which a compiler can turn
into vector instructions; a library's tanh is called number by number and takes ten times as long. They are right to
about 2e-7, the rounding of single precision. In double precision the library's functions are taken.
"""

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from bdqm_tune.compiled import compiled, compiled_fast

ACTIVATION_CODES = {"tanh": 0, "relu": 1, "gelu": 2, "silu": 3, "softplus": 4}
SQRT_HALF, DENSITY = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""


def exp(x: Any) -> Any:
    """Exponential function."""


def erf(x: Any) -> Any:
    """Error function."""


@overload(tanh, inline="always")
def _tanh(x):  # type: ignore[no-untyped-def]
    return _tanh_single if x == types.float32 else (lambda x: math.tanh(x))


@overload(exp, inline="always")
def _exp(x):  # type: ignore[no-untyped-def]
    return _exp_single if x == types.float32 else (lambda x: math.exp(x))


@overload(erf, inline="always")
def _erf(x):  # type: ignore[no-untyped-def]
    return _erf_single if x == types.float32 else (lambda x: math.erf(x))


@compiled
def _within(x, low, high):  # type: ignore[no-untyped-def]
    x = low if x < low else x  # NaN stays NaN, unlike with min and max
    return high if x > high else x


@compiled
def _polynomial(x, coefficients):  # type: ignore[no-untyped-def]
    total = coefficients[0]
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total


def _single(*coefficients: float) -> tuple[np.float32, ...]:
    """Of a polynomial, the highest power first."""
    return tuple(map(np.float32, coefficients))


# Odd functions as x · P(x²) / Q(x²), from Eigen (generic_fast_tanh_float, generic_fast_erf_float).
TANH_P = _single(
    -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08, 1.48572235717979e-05,
    6.37261928875436e-04, 4.89352455891786e-03,
)  # fmt: skip
TANH_Q = _single(1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
TANH_BOUND = np.float32(7.90531110763549805)
ERF_P = _single(
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05, -7.34990630326855e-04,
    -2.95459980854025e-03, -1.60960333262415e-02,
)  # fmt: skip
ERF_Q = _single(
    -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02
)
ERF_BOUND = np.float32(4)
# (exp(r) - 1 - r) / r² for |r| ≤ ln(2) / 2, and ln(2) in two parts, from Cephes (expf).
EXP_P = _single(
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1
)  # fmt: skip
LN2_HIGH, LN2_LOW, LOG2_E = _single(0.693359375, -2.12194440e-4, 1.44269504088896341)


def _tanh_single(x):  # type: ignore[no-untyped-def]
    y = _within(x, -TANH_BOUND, TANH_BOUND)
    return y * _polynomial(y * y, TANH_P) / _polynomial(y * y, TANH_Q)


def _erf_single(x):  # type: ignore[no-untyped-def]
    y = _within(x, -ERF_BOUND, ERF_BOUND)
    return y * _polynomial(y * y, ERF_P) / _polynomial(y * y, ERF_Q)


def _exp_single(x):  # type: ignore[no-untyped-def]
    # 2^n · exp(r), where 2^n is made of its bits.
    y = _within(x, np.float32(-87), np.float32(88))
    n = np.floor(y * LOG2_E + np.float32(0.5))
    r = y - n * LN2_HIGH - n * LN2_LOW
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return (_polynomial(r, EXP_P) * r * r + r + np.float32(1)) * power


@compiled_fast
def activate(code, y, value, slope, curvature, curved):  # type: ignore[no-untyped-def]
    """Write an activation's value and slope at every y, and its curvature where `curved`; all are flat arrays."""
    n = len(y)
    one, half, two = y.dtype.type(1), y.dtype.type(0.5), y.dtype.type(2)
    zero, density, sqrt_half = y.dtype.type(0), y.dtype.type(DENSITY), y.dtype.type(SQRT_HALF)
    if code == 0:
        for i in range(n):
            t = tanh(y[i])
            value[i] = t
            slope[i] = one - t * t
        if curved:
            for i in range(n):
                curvature[i] = -two * value[i] * slope[i]
    elif code == 1:
        for i in range(n):
            positive = one if y[i] > zero else zero
            value[i] = y[i] * positive
            slope[i] = positive
            if curved:
                curvature[i] = zero
    elif code == 2:
        for i in range(n):
            below = half * (one + erf(y[i] * sqrt_half))
            bell = density * exp(-half * y[i] * y[i])
            value[i] = y[i] * below
            slope[i] = below + y[i] * bell
        if curved:
            for i in range(n):
                curvature[i] = (two - y[i] * y[i]) * density * exp(-half * y[i] * y[i])
    elif code == 3:
        for i in range(n):
            s = one / (one + exp(-y[i]))
            value[i] = y[i] * s
            slope[i] = s * (one + y[i] * (one - s))
        if curved:
            for i in range(n):
                s = one / (one + exp(-y[i]))
                curvature[i] = s * (one - s) * (two + y[i] * (one - two * s))
    else:
        for i in range(n):
            e = exp(-abs(y[i]))
            s = one / (one + e)
            value[i] = max(y[i], zero) + math.log1p(e)
            slope[i] = s if y[i] > zero else one - s
            if curved:
                curvature[i] = s * (one - s)
