"""Activations with their first two derivatives, compiled so that they work on many numbers at once.

They are rational functions and an exponential made of multiplications, which a compiler can turn into vector
instructions; a library's tanh is called number by number and takes ten times as long. They are right to about 2e-7 in
single precision and 1e-15 in double, a few roundings.
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


def log1p(x: Any) -> Any:
    """Logarithm of 1 + x, for x from 0 to 1."""


@overload(tanh, inline="always")
def _tanh(x):  # type: ignore[no-untyped-def]
    return _tanh_single if x == types.float32 else _tanh_double


@overload(exp, inline="always")
def _exp(x):  # type: ignore[no-untyped-def]
    return _exp_single if x == types.float32 else _exp_double


@overload(erf, inline="always")
def _erf(x):  # type: ignore[no-untyped-def]
    return _erf_single if x == types.float32 else _erf_double


@overload(log1p, inline="always")
def _log1p(x):  # type: ignore[no-untyped-def]
    return _log1p_single if x == types.float32 else _log1p_double


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

# The same in double precision, from Cephes (exp, tanh, ndtr). exp(r) = 1 + 2 r P(r²) / (Q(r²) - r P(r²)); tanh is
# x + x³ P(x²) / Q(x²) below 0.625; erf is x P(x²) / Q(x²) below 1, and 1 - exp(-x²) P(x) / Q(x) from there on.
EXP_P_DOUBLE = (1.26177193074810590878e-4, 3.02994407707441961300e-2, 9.99999999999999999910e-1)
EXP_Q_DOUBLE = (
    3.00198505138664455042e-6, 2.52448340349684104192e-3, 2.27265548208155028766e-1, 2.00000000000000000005e0
)  # fmt: skip
LN2_HIGH_DOUBLE, LN2_LOW_DOUBLE, LOG2_E_DOUBLE = (
    6.93145751953125e-1,
    1.42860682030941723212e-6,
    1.4426950408889634073599,
)
ALIGNED = np.float64(1.5 * 2**52 + 1023)
TANH_P_DOUBLE = (-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3)
TANH_Q_DOUBLE = (1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3)
ERF_P_DOUBLE = (
    9.60497373987051638749e0, 9.00260197203842689217e1, 2.23200534594684319226e3, 7.00332514112805075473e3,
    5.55923013010394962768e4,
)  # fmt: skip
ERF_Q_DOUBLE = (
    1.0, 3.35617141647503099647e1, 5.21357949780152679795e2, 4.59432382970980127987e3, 2.26290000613890934246e4,
    4.92673942608635921086e4,
)  # fmt: skip
ERFC_P_DOUBLE = (
    2.46196981473530512524e-10, 5.64189564831068821977e-1, 7.46321056442269912687e0, 4.86371970985681366614e1,
    1.96520832956077098242e2, 5.26445194995477358631e2, 9.34528527171957607540e2, 1.02755188689515710272e3,
    5.57535335369399327526e2,
)  # fmt: skip
ERFC_Q_DOUBLE = (
    1.0, 1.32281951154744992508e1, 8.67072140885989742329e1, 3.54937778887819891062e2, 9.75708501743205489753e2,
    1.82390916687909736289e3, 2.24633760818710981792e3, 1.65666309194161350182e3, 5.57535340817727675546e2,
)  # fmt: skip


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


def _exp_double(x):  # type: ignore[no-untyped-def]
    y = _within(x, -708.0, 709.0)
    n = np.floor(y * LOG2_E_DOUBLE + 0.5)
    r = y - n * LN2_HIGH_DOUBLE - n * LN2_LOW_DOUBLE
    p = r * _polynomial(r * r, EXP_P_DOUBLE)
    # 2^n of its bits. The addition makes those of n + 1023 the last ones; a conversion would be no vector instruction.
    power = np.int64(np.float64(n + ALIGNED).view(np.int64) << np.int64(52)).view(np.float64)
    return (1.0 + 2.0 * p / (_polynomial(r * r, EXP_Q_DOUBLE) - p)) * power


def _erf_double(x):  # type: ignore[no-untyped-def]
    y = _within(abs(x), 0.0, 6.0)  # beyond, it is 1
    near = x * _polynomial(x * x, ERF_P_DOUBLE) / _polynomial(x * x, ERF_Q_DOUBLE)
    far = 1.0 - exp(-y * y) * _polynomial(y, ERFC_P_DOUBLE) / _polynomial(y, ERFC_Q_DOUBLE)
    return near if abs(x) < 1.0 else (far if x > 0.0 else -far)


def _tanh_double(x):  # type: ignore[no-untyped-def]
    near = x + x * x * x * _polynomial(x * x, TANH_P_DOUBLE) / _polynomial(x * x, TANH_Q_DOUBLE)
    far = 1.0 - 2.0 / (exp(2.0 * abs(x)) + 1.0)
    return near if abs(x) < 0.625 else (far if x > 0.0 else -far)


# log(1 + x) = 2 atanh(x / (2 + x)), by the series of atanh. In double precision it is short enough to become vector
# instructions if sqrt(2) is taken out of 1 + x where that is larger.
ATANH_DOUBLE = tuple(2.0 / (2 * k + 1) for k in reversed(range(10)))
ATANH_SINGLE = _single(*ATANH_DOUBLE[1:])
ROOT, LOG_ROOT = math.sqrt(2), math.log(2) / 2


def _log1p_single(x):  # type: ignore[no-untyped-def]
    z = x / (np.float32(2) + x)
    return z * _polynomial(z * z, ATANH_SINGLE)


def _log1p_double(x):  # type: ignore[no-untyped-def]
    above = x > ROOT - 1.0
    z = (x - ((ROOT - 1.0) if above else 0.0)) / (x + ((ROOT + 1.0) if above else 2.0))
    return (LOG_ROOT if above else 0.0) + z * _polynomial(z * z, ATANH_DOUBLE)


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
            value[i] = max(y[i], zero) + log1p(e)
            slope[i] = s if y[i] > zero else one - s
            if curved:
                curvature[i] = s * (one - s)
