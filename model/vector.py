"""Operations on a few consecutive floats of flat arrays, for compiled kernels, as LLVM IR of a fixed length.

Loops over rows of arrays are not vectorised well, as their rows might overlap; these are, with sums in registers. Each
number is computed in the same way whatever is computed beside it. Measured: a 64 × 64 product of a row takes 0.16 µs
instead of 1.6, attention to ten neighbours less than half of what loops take. A change here must change
`kernels.VECTOR`, too.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as _cgutils
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic

_FLOAT, _DOUBLE = ir.FloatType(), ir.DoubleType()
_INT = ir.IntType(32)
_BLOCK = 8
"""Of so many products each sum is taken by itself, and then of these: two thirds of the error of one long sum."""
_SLOPE = 0.2
"""Of GATv2's leaky ReLU."""
Typed = tuple[Any, Any]
"""A signature, and what writes the code of a call."""
_intrinsic: Any = intrinsic
cgutils: Any = _cgutils


def _vector(n: int) -> Any:
    return ir.VectorType(_FLOAT, n)


class _Code:
    """Writes the IR of one operation on vectors of n floats."""

    def __init__(self, context: Any, builder: Any, n: int) -> None:
        self._context = context
        self.builder = builder
        self._n = n

    def element(self, kind: Any, array: Any, at: Any) -> Any:
        """The address of one element of a flat array."""
        return self.builder.gep(self._context.make_array(kind)(self._context, self.builder, array).data, [at])

    def place(self, kind: Any, array: Any, at: Any) -> Any:
        """The address of n elements."""
        return self.builder.bitcast(self.element(kind, array, at), _vector(self._n).as_pointer())

    def load(self, pointer: Any) -> Any:
        """The n elements of an address."""
        value = self.builder.load(pointer)
        value.align = 4
        return value

    def store(self, value: Any, pointer: Any) -> None:
        """Put n elements to an address."""
        self.builder.store(value, pointer).align = 4

    def splat(self, value: Any) -> Any:
        """One number n times."""
        undefined, first = ir.Constant(_vector(self._n), ir.Undefined), ir.Constant(ir.VectorType(_INT, self._n), None)
        one = self.builder.insert_element(undefined, value, ir.Constant(_INT, 0))
        return self.builder.shuffle_vector(one, undefined, first)

    def _function(self, name: str, result: Any, arguments: list[Any]) -> Any:
        kind = ir.FunctionType(result, arguments)
        return cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.v{self._n}f32")

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Multiply and add."""
        vector = _vector(self._n)
        return self.builder.call(self._function("fmuladd", vector, [vector] * 3), [a, b, c])

    def sum(self, value: Any) -> Any:
        """The sum of n float64s, in an order that the compiler chooses once."""
        kind = ir.FunctionType(_DOUBLE, [_DOUBLE, value.type])
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.vector.reduce.fadd.v{self._n}f64")
        return self.builder.call(function, [ir.Constant(_DOUBLE, 0.0), value], fastmath=("reassoc", "nsz"))


def _length(n: Any) -> int:
    """The length that a kernel asks for; a number that is only known at run time is none."""
    if not isinstance(n, types.IntegerLiteral):
        raise RequireLiteralValue("the length of a vector must be known when the kernel is compiled")
    return int(n.literal_value)


@_intrinsic
def affine(
    _context: Any, x: Any, xi: Any, inputs: Any, weight: Any, wi: Any, bias: Any, bi: Any, out: Any, oi: Any, n: Any
) -> Typed:
    """out[oi : oi + n] = bias[bi : bi + n] + Σ x[xi + k] · weight[wi + k·n : wi + (k + 1)·n], in the order of k."""
    size = _length(n)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        c = _Code(context, builder, size)
        x_, weight_, bias_, out_ = (signature.args[at] for at in (0, 3, 5, 7))
        total, part = (cgutils.alloca_once(builder, _vector(size)) for _ in range(2))
        builder.store(c.load(c.place(bias_, values[5], values[6])), total)

        def add(k: Any, to: Any) -> None:
            factor = c.splat(builder.load(c.element(x_, values[0], builder.add(values[1], k))))
            at = builder.add(values[4], builder.mul(k, ir.Constant(k.type, size)))
            row = c.load(c.place(weight_, values[3], at))
            builder.store(c.multiply_add(factor, row, builder.load(to)), to)

        inputs_ = values[2]
        block = ir.Constant(inputs_.type, _BLOCK)
        whole = builder.mul(builder.sdiv(inputs_, block), block)
        with cgutils.for_range(builder, builder.sdiv(inputs_, block)) as loop:
            builder.store(ir.Constant(_vector(size), [ir.Constant(_FLOAT, 0.0)] * size), part)
            begin = builder.mul(loop.index, block)
            for k in range(_BLOCK):
                add(builder.add(begin, ir.Constant(begin.type, k)), part)
            builder.store(builder.fadd(builder.load(total), builder.load(part)), total)
        with cgutils.for_range(builder, builder.sub(inputs_, whole)) as loop:
            add(builder.add(whole, loop.index), total)
        c.store(builder.load(total), c.place(out_, values[7], values[8]))
        return context.get_dummy_value()

    integer = types.intp
    return types.void(x, integer, integer, weight, integer, bias, integer, out, integer, n), code


@_intrinsic
def add_scaled(_context: Any, out: Any, oi: Any, factor: Any, x: Any, xi: Any, n: Any) -> Typed:
    """out[oi : oi + n] += factor · x[xi : xi + n]."""
    size = _length(n)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        c = _Code(context, builder, size)
        place = c.place(signature.args[0], values[0], values[1])
        added = c.load(c.place(signature.args[3], values[3], values[4]))
        c.store(c.multiply_add(c.splat(values[2]), added, c.load(place)), place)
        return context.get_dummy_value()

    return types.void(out, types.intp, types.float32, x, types.intp, n), code


@_intrinsic
def logit(_context: Any, p: Any, pi: Any, t: Any, ti: Any, attention: Any, ai: Any, n: Any) -> Typed:
    """Σ leaky(p[pi + c] + t[ti + c]) · attention[ai + c] over n channels c, in float64 and rounded once.

    What is wrong with a logit is multiplied by how peaked the attention is.
    """
    size = _length(n)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        c = _Code(context, builder, size)
        source, target, weight = (c.load(c.place(signature.args[at], *values[at : at + 2])) for at in (0, 2, 4))
        double = ir.VectorType(_DOUBLE, size)
        value = builder.fadd(builder.fpext(source, double), builder.fpext(target, double))
        small = builder.fmul(value, ir.Constant(double, [ir.Constant(_DOUBLE, _SLOPE)] * size))
        leaky = builder.select(builder.fcmp_ordered(">", value, small), value, small)
        return builder.fptrunc(c.sum(builder.fmul(leaky, builder.fpext(weight, double))), _FLOAT)

    return types.float32(p, types.intp, t, types.intp, attention, types.intp, n), code


@_intrinsic
def as_float(_context: Any, bits: Any) -> Typed:
    """The float32 with these bits."""

    def code(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], _FLOAT)

    return types.float32(types.int32), code
