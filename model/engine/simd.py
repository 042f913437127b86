"""Operations on a few consecutive numbers of flat arrays, for compiled kernels, as LLVM IR of a fixed length.

LLVM does not vectorise loops over rows of arrays well, because the rows might overlap. These operations are vectorised,
with sums in registers, and compute each number in the same way whatever is computed beside it. Measured: the product of
a row with a 64 × 64 matrix takes 0.09 µs instead of 1.6. After a change here, the checksums `VECTOR` and `KERNELS` must
be updated too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as _cgutils
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic

_FLOAT, _DOUBLE = ir.FloatType(), ir.DoubleType()
_INT = ir.IntType(32)
_BLOCK = 8
"""Products per partial sum; the partial sums are added up. Two thirds of the error of one long sum."""
_SLOPE = 0.2
"""Negative slope of LeakyReLU in GATv2."""
GRAIN = 1.5 * 2.0**20
"""Adding and subtracting this rounds a float64 below 2¹⁹ to a multiple of 2⁻³²; sums of such numbers have no order."""
LANES = 16
"""Float32s per cache line, and per vector of `exp`."""
AHEAD = 8
"""Number of rows that kernels prefetch ahead."""
Typed = tuple[Any, Any]
"""A signature, and the function that generates the code of a call."""
_intrinsic: Any = intrinsic
cgutils: Any = _cgutils


class _Code:
    """Generates the IR of one operation on vectors of n numbers."""

    def __init__(self, context: Any, builder: Any, n: int, kind: Any = _FLOAT) -> None:
        self._context = context
        self.builder = builder
        self._n = n
        self._kind = kind
        self.vector = ir.VectorType(kind, n)

    def element(self, kind: Any, array: Any, at: Any) -> Any:
        """Return the address of one element of a flat array."""
        return self.builder.gep(self._context.make_array(kind)(self._context, self.builder, array).data, [at])

    def place(self, kind: Any, array: Any, at: Any) -> Any:
        """Return the address of n elements."""
        return self.builder.bitcast(self.element(kind, array, at), self.vector.as_pointer())

    def load(self, pointer: Any) -> Any:
        """Load n elements from an address."""
        value = self.builder.load(pointer)
        value.align = 4
        return value

    def store(self, value: Any, pointer: Any) -> None:
        """Store n elements at an address."""
        self.builder.store(value, pointer).align = 4

    def all(self, number: float) -> Any:
        """Return a vector of n equal constants."""
        return ir.Constant(self.vector, [ir.Constant(self._kind, number)] * self._n)

    def splat(self, value: Any) -> Any:
        """Return a vector with one number n times."""
        undefined, first = ir.Constant(self.vector, ir.Undefined), ir.Constant(ir.VectorType(_INT, self._n), None)
        one = self.builder.insert_element(undefined, value, ir.Constant(_INT, 0))
        return self.builder.shuffle_vector(one, undefined, first)

    def call(self, name: str, *values: Any) -> Any:
        """Call an LLVM intrinsic on vectors."""
        kind = ir.FunctionType(self.vector, [self.vector] * len(values))
        bits = 32 if self._kind is _FLOAT else 64
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.v{self._n}f{bits}")
        return self.builder.call(function, list(values))

    def prefetch_line(self, pointer: Any) -> None:
        """Prefetch the cache line of an address."""
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _INT, _INT, _INT])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        read, every_level, data = (ir.Constant(_INT, number) for number in (0, 3, 1))
        self.builder.call(function, [self.builder.bitcast(pointer, byte), read, every_level, data])

    def sum(self, value: Any) -> Any:
        """Return the sum of n float64s, in an order that the compiler fixes."""
        kind = ir.FunctionType(_DOUBLE, [_DOUBLE, value.type])
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.vector.reduce.fadd.v{self._n}f64")
        return self.builder.call(function, [ir.Constant(_DOUBLE, 0.0), value], fastmath=("reassoc", "nsz"))


def _length(n: Any) -> int:
    """Return the length that a kernel asks for; refuse one that is only known at run time."""
    if isinstance(n, types.BaseTuple):
        return len(n)
    if not isinstance(n, types.IntegerLiteral):
        raise RequireLiteralValue("the length of a vector must be known when the kernel is compiled")
    return int(n.literal_value)


Size = tuple[tuple[()], ...]


def size(n: int) -> Size:
    """Return a number that compiled functions pass on by its type: a tuple of n empty tuples.

    So functions specialised for a width are global and call each other, and numba still finds them in its cache: a
    closure over a compiled function has another key in each process.
    """
    return ((),) * n


@_intrinsic
def pointer(_context: Any, address: Any) -> Typed:
    """Return an address as a pointer for `numba.carray`."""

    def code(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), code


@_intrinsic
def affine(_context: Any, x: Any, xi: Any, inputs: Any, weight: Any, bias: Any, out: Any, oi: Any, n: Any) -> Typed:
    """Compute out[oi : oi + n] = bias[:n] + Σ x[xi + k] · weight[k·n : (k + 1)·n], in the order of k."""
    size = _length(n)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        c = _Code(context, builder, size)
        x_, weight_, bias_, out_ = (signature.args[at] for at in (0, 3, 4, 5))
        total, part = (cgutils.alloca_once(builder, c.vector) for _ in range(2))
        inputs_ = values[2]
        none, block, width = (ir.Constant(inputs_.type, number) for number in (0, _BLOCK, size))
        builder.store(c.load(c.place(bias_, values[4], none)), total)

        def add(k: Any, to: Any) -> None:
            factor = c.splat(builder.load(c.element(x_, values[0], builder.add(values[1], k))))
            line = c.load(c.place(weight_, values[3], builder.mul(k, width)))
            builder.store(c.call("fmuladd", factor, line, builder.load(to)), to)

        whole = builder.mul(builder.sdiv(inputs_, block), block)
        with cgutils.for_range(builder, builder.sdiv(inputs_, block)) as loop:
            builder.store(c.all(0.0), part)
            begin = builder.mul(loop.index, block)
            for k in range(_BLOCK):
                add(builder.add(begin, ir.Constant(begin.type, k)), part)
            builder.store(builder.fadd(builder.load(total), builder.load(part)), total)
        with cgutils.for_range(builder, builder.sub(inputs_, whole)) as loop:
            add(builder.add(whole, loop.index), total)
        c.store(builder.load(total), c.place(out_, values[5], values[6]))
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, weight, bias, out, types.intp, n), code


@_intrinsic
def affine64(_context: Any, x: Any, xi: Any, inputs: Any, weight: Any, bias: Any, out: Any, oi: Any, n: Any) -> Typed:
    """Compute the same as `affine` in float64 and round once; weight and bias are float64.

    For the first layer: it has few inputs, and later layers amplify its errors.
    """
    size = _length(n)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        c, double = _Code(context, builder, size), _Code(context, builder, size, _DOUBLE)
        x_, weight_, bias_, out_ = (signature.args[at] for at in (0, 3, 4, 5))
        total, none = cgutils.alloca_once(builder, double.vector), ir.Constant(values[2].type, 0)
        builder.store(double.load(double.place(bias_, values[4], none)), total)
        with cgutils.for_range(builder, values[2]) as loop:
            number = builder.load(c.element(x_, values[0], builder.add(values[1], loop.index)))
            factors = double.splat(builder.fpext(number, _DOUBLE))
            at = builder.mul(loop.index, ir.Constant(none.type, size))
            lines = double.load(double.place(weight_, values[3], at))
            builder.store(double.call("fmuladd", factors, lines, builder.load(total)), total)
        c.store(builder.fptrunc(builder.load(total), c.vector), c.place(out_, values[5], values[6]))
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, weight, bias, out, types.intp, n), code


class _Neighbours:
    """Generates the loop of `logits` and `gather` over the sources rows[k]; source k is x[rows[k]·stride + xi :][:n].

    Each iteration prefetches one source of the next target: prefetching all at once stalls.
    """

    def __init__(self, c: _Code, signature: Any, values: Any, ahead: int) -> None:
        self._c, self._values = c, values
        self._x, self._rows = (signature.args[at] for at in (2, 4))
        self._shift, self._last, self._line = values[ahead : ahead + 3]

    def _at(self, k: Any, offset: Any) -> Any:
        builder = self._c.builder
        row = builder.sext(builder.load(self._c.element(self._rows, self._values[4], k)), offset.type)
        return builder.add(builder.mul(row, self._values[5]), offset)

    def load(self, k: Any) -> Any:
        """Load the numbers of one source as float64s."""
        c = self._c
        line = c.load(c.place(self._x, self._values[2], self._at(k, self._values[3])))
        return c.builder.fpext(line, ir.VectorType(_DOUBLE, line.type.count))

    def each(self, body: Callable[[Any], None]) -> None:
        """Generate the body for each k from begin to end."""
        c, (begin, end) = self._c, self._values[6:8]
        with cgutils.for_range(c.builder, c.builder.sub(end, begin)) as loop:
            k = c.builder.add(begin, loop.index)
            body(k)
            there = c.builder.add(k, self._shift)
            there = c.builder.select(c.builder.icmp_signed("<", there, self._last), there, self._last)
            c.prefetch_line(c.element(self._x, self._values[2], self._at(there, self._line)))


@_intrinsic
def logits(
    _context: Any, out: Any, oi: Any, x: Any, xi: Any, rows: Any, stride: Any, begin: Any, end: Any,
    target: Any, ti: Any, attention: Any, ai: Any, shift: Any, last: Any, line: Any, n: Any,
) -> Typed:  # fmt: skip
    """Compute logits: out[oi + k] = Σ_c leaky(x[rows[k]·stride + xi + c] + target[ti + c]) · attention[ai + c].

    For each k from begin to end and n channels c, in float64 and rounded once: peaked attention amplifies an error of a
    logit. Each iteration prefetches x[rows[min(k + shift, last)]·stride + line].
    """
    size = _length(n)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        c, double = _Code(context, builder, size), _Code(context, builder, size, _DOUBLE)
        neighbours = _Neighbours(c, signature, values, 12)

        def load(array: int, at: Any) -> Any:
            return builder.fpext(c.load(c.place(signature.args[array], values[array], at)), double.vector)

        towards, weight = load(8, values[9]), load(10, values[11])

        def add_logit(k: Any) -> None:
            value = builder.fadd(neighbours.load(k), towards)
            small = builder.fmul(value, double.all(_SLOPE))
            leaky = builder.select(builder.fcmp_ordered(">", value, small), value, small)
            logit = builder.fptrunc(double.sum(builder.fmul(leaky, weight)), _FLOAT)
            builder.store(logit, c.element(signature.args[0], values[0], builder.add(values[1], k)))

        neighbours.each(add_logit)
        return context.get_dummy_value()

    integer = types.intp
    return types.void(
        out, integer, x, integer, rows, integer, integer, integer, target, integer, attention, integer,
        integer, integer, integer, n,
    ), code  # fmt: skip


@_intrinsic
def gather(
    _context: Any, sums: Any, si: Any, x: Any, xi: Any, rows: Any, stride: Any, begin: Any, end: Any,
    factors: Any, fi: Any, shift: Any, last: Any, line: Any, n: Any,
) -> Typed:  # fmt: skip
    """Compute sums[si : si + n] += Σ_k factors[fi + k] · x[rows[k]·stride + xi :][:n], in any order of k.

    For k from begin to end. Sums are float64; each product is rounded to a multiple of 2⁻³², so sums below 2²⁰ are
    exact, and the negated factor subtracts exactly what was added. `shift`, `last` and `line` are those of `logits`.
    """
    size = _length(n)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        c, double = _Code(context, builder, size), _Code(context, builder, size, _DOUBLE)
        neighbours = _Neighbours(c, signature, values, 10)
        total, grain = cgutils.alloca_once(builder, double.vector), double.all(GRAIN)
        place = double.place(signature.args[0], values[0], values[1])
        builder.store(double.load(place), total)

        def add_source(k: Any) -> None:
            factor = builder.load(c.element(signature.args[8], values[8], builder.add(values[9], k)))
            factors_ = builder.fpext(c.splat(factor), double.vector)
            rounded = builder.fsub(double.call("fmuladd", factors_, neighbours.load(k), grain), grain)
            builder.store(builder.fadd(builder.load(total), rounded), total)

        neighbours.each(add_source)
        double.store(builder.load(total), place)
        return context.get_dummy_value()

    integer = types.intp
    return types.void(
        sums, integer, x, integer, rows, integer, integer, integer, factors, integer, integer, integer, integer, n
    ), code


@_intrinsic
def share(_context: Any, out: Any, oi: Any, sums: Any, si: Any, by: Any, n: Any) -> Typed:
    """Compute out[oi : oi + n] += sums[si : si + n] · (1 / by), in float64 and rounded once."""
    size = _length(n)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        c, double = _Code(context, builder, size), _Code(context, builder, size, _DOUBLE)
        place = c.place(signature.args[0], values[0], values[1])
        sums_ = double.load(double.place(signature.args[2], values[2], values[3]))
        inverse = double.splat(builder.fdiv(ir.Constant(_DOUBLE, 1.0), values[4]))
        total = builder.fadd(builder.fpext(c.load(place), double.vector), builder.fmul(sums_, inverse))
        c.store(builder.fptrunc(total, c.vector), place)
        return context.get_dummy_value()

    return types.void(out, types.intp, sums, types.intp, types.float64, n), code


@_intrinsic
def rectified(_context: Any, x: Any, weight: Any, n: Any) -> Typed:
    """Return Σ max(x[c], 0) · weight[c] over n channels c, in float64."""
    size = _length(n)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        c, double = _Code(context, builder, size), _Code(context, builder, size, _DOUBLE)
        none = ir.Constant(ir.IntType(64), 0)
        x_, weight_ = (c.load(c.place(signature.args[at], values[at], none)) for at in (0, 1))
        positive = builder.select(builder.fcmp_ordered(">", x_, c.all(0.0)), x_, c.all(0.0))
        return double.sum(builder.fmul(builder.fpext(positive, double.vector), builder.fpext(weight_, double.vector)))

    return types.float64(x, weight, n), code


_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
"""Coefficients of Cephes' expf."""


@_intrinsic
def exp(_context: Any, x: Any, at: Any, top: Any, n: Any) -> Typed:
    """Compute x[at : at + n] = e^min(x − top, 0) to two units in the last place; arguments below −87 are clamped."""
    size = _length(n)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        c = _Code(context, builder, size)
        place = c.place(signature.args[0], values[0], values[1])
        value = builder.fsub(c.load(place), c.splat(values[2]))
        value = builder.select(builder.fcmp_ordered("<", value, c.all(0.0)), value, c.all(0.0))
        value = builder.select(builder.fcmp_ordered(">", value, c.all(-87.0)), value, c.all(-87.0))
        whole = c.call("floor", c.call("fmuladd", value, c.all(1.44269504), c.all(0.5)))
        # ln 2 in two parts, so that the difference does not lose bits.
        rest = c.call("fmuladd", whole, c.all(-0.693359375), value)
        rest = c.call("fmuladd", whole, c.all(2.12194440e-4), rest)
        result = c.all(_EXP[0])
        for factor in _EXP[1:]:
            result = c.call("fmuladd", result, rest, c.all(factor))
        result = c.call("fmuladd", builder.fmul(result, rest), rest, builder.fadd(rest, c.all(1.0)))
        integers = ir.VectorType(_INT, size)
        bias, shift = (ir.Constant(integers, [ir.Constant(_INT, number)] * size) for number in (127, 23))
        power = builder.shl(builder.add(builder.fptosi(whole, integers), bias), shift)
        c.store(builder.fmul(result, builder.bitcast(power, c.vector)), place)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.float32, n), code


@_intrinsic
def prefetch(_context: Any, x: Any, at: Any) -> Typed:
    """Prefetch x[at]."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        c = _Code(context, builder, 1)
        c.prefetch_line(c.element(signature.args[0], values[0], values[1]))
        return context.get_dummy_value()

    return types.void(x, types.intp), code
