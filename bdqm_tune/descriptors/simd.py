"""Eight numbers at once in compiled functions: they become vector instructions, whatever the loops around them.

LLVM turns a loop over arrays into vector instructions only after checks that no two of them overlap; for loops as short
as one over the widths of a descriptor the checks cost more than the work. Here the vector is a type of its own,
`Lanes`, with `load`, `store`, `spread`, `exp`, `sqrt`, `larger`, `where_less`, `+`, `-`, `*` and `/`.

A function that uses these is taken from numba's cache even if this file has changed: `make compiled` notices.
"""

# Numba compiles these, and llvmlite, which writes the instructions, is without types.
# mypy: disable-error-code="no-untyped-def,call-arg"

import math
import operator

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

WIDTH = 8  # of doubles: a register of AVX-512, two of AVX2, four of NEON

_VECTOR = ir.VectorType(ir.DoubleType(), WIDTH)
_INTEGERS = ir.VectorType(ir.IntType(64), WIDTH)
_CONTRACT = ("contract",)  # let a·b + c become one instruction

# exp(x) = 2^k·exp(r), k = round(x/ln 2), |r| ≤ ln(2)/2. ln 2 in two parts, of which the first has trailing zeros.
_LN2_HIGH, _LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10
# Added to k, it leaves the exponent of 2^k, which is biased by 1023, in the lowest bits.
_SHIFT = 1.5 * 2**52 + 1023
_LOWEST = -708.0  # below it, 2^k would leave the range of normal numbers
_DEGREE = 13  # of the polynomial for exp(r): to rounding


class Lanes(types.Type):
    """The type of `WIDTH` doubles."""

    def __init__(self):
        super().__init__(name="Lanes")


lanes = Lanes()


@register_model(Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _VECTOR)


@intrinsic
def load(typing, array, place):
    """The numbers from `place` of a contiguous array of one axis; nothing checks that they are there."""

    def code(context, builder, signature, arguments):
        loaded = builder.load(_pointer(context, builder, signature.args[0], arguments[0], arguments[1]))
        loaded.align = 8
        return loaded

    return lanes(array, types.intp), code


@intrinsic
def store(typing, array, place, value):
    """Write to where `load` reads."""

    def code(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        builder.store(arguments[2], pointer).align = 8
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), code


@intrinsic
def spread(typing, number):
    """One number in all lanes."""

    def code(context, builder, signature, arguments):
        first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), arguments[0], ir.IntType(32)(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        return builder.shuffle_vector(first, first, mask)

    return lanes(types.float64), code


@intrinsic
def exp(typing, x):
    """exp(x) for x ≤ 0 to 2 units in the last place; below -708 it stays what it is there, 3e-308."""

    def code(context, builder, signature, arguments):
        def multiply_add(a, b, c):
            return builder.fadd(builder.fmul(a, b, flags=_CONTRACT), c, flags=_CONTRACT)

        x = builder.select(builder.fcmp_ordered(">", arguments[0], _all(_LOWEST)), arguments[0], _all(_LOWEST))
        shifted = multiply_add(x, _all(1 / math.log(2)), _all(_SHIFT))
        k = builder.fsub(shifted, _all(_SHIFT))
        r = multiply_add(k, _all(-_LN2_LOW), multiply_add(k, _all(-_LN2_HIGH), x))
        power = _all(1 / math.factorial(_DEGREE))
        for n in range(_DEGREE - 1, -1, -1):
            power = multiply_add(power, r, _all(1 / math.factorial(n)))
        exponent = builder.shl(builder.bitcast(shifted, _INTEGERS), ir.Constant(_INTEGERS, [52] * WIDTH))
        return builder.fmul(power, builder.bitcast(exponent, _VECTOR))

    return lanes(lanes), code


@intrinsic
def sqrt(typing, x):
    """The root of x ≥ 0."""

    def code(context, builder, signature, arguments):
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{WIDTH}f64")
        return builder.call(function, [arguments[0]])

    return lanes(lanes), code


@intrinsic
def larger(typing, a, b):
    """The larger of two numbers."""

    def code(context, builder, signature, arguments):
        a, b = arguments
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)

    return lanes(lanes, lanes), code


@intrinsic
def where_less(typing, a, b, value):
    """The value where a < b, else 0."""

    def code(context, builder, signature, arguments):
        a, b, value = arguments
        return builder.select(builder.fcmp_ordered("<", a, b), value, _all(0.0))

    return lanes(lanes, lanes, lanes), code


def _all(number):
    return ir.Constant(_VECTOR, [number] * WIDTH)


def _pointer(context, builder, kind, array, place):
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [place]), _VECTOR.as_pointer())


def _operator(instruction, flags):
    @intrinsic
    def apply(typing, a, b):
        def code(context, builder, signature, arguments):
            return getattr(builder, instruction)(*arguments, flags=flags)

        return lanes(lanes, lanes), code

    return apply


def _overload(symbol, instruction):
    apply = _operator(instruction, _CONTRACT)

    @overload(symbol, inline="always")
    def operate(a, b):
        return (lambda a, b: apply(a, b)) if isinstance(a, Lanes) and isinstance(b, Lanes) else None


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.iadd, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _overload(_symbol, _instruction)
_add = _operator("fadd", ())


@numba.njit(inline="always")
def add_to(array, place, value):
    """Add to the numbers in an array. A product is rounded before: what is equal and opposite cancels exactly."""
    store(array, place, _add(load(array, place), value))
