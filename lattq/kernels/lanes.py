"""Vectors of 16 numbers, one from each of 16 searches side by side, in compiled code.

Numba leaves short loops over lanes scalar, so these few operations are written as instructions on vectors, which LLVM
lowers to whatever the processor has. Arrays hold them as rows of 16. The functions here are compiled into those that
call them: after a change here, compiled files of callers must be removed.
"""

from typing import no_type_check  # a function wrapped for run-time checks would not compile

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

__all__ = ["LANES", "Vector", "join", "keep", "least", "row_pointer", "spread"]

LANES = 16


@no_type_check
class Vector:
    """A vector register with the operators of arithmetic; `&`, `|` and `^` are those of bits."""

    def __init__(self, builder, value):
        self.builder, self.value = builder, value

    def _call(self, operation, other):
        return Vector(self.builder, operation(self.value, other.value))

    def __add__(self, other):
        return self._call(self.builder.fadd if self.is_float else self.builder.add, other)

    def __sub__(self, other):
        return self._call(self.builder.fsub if self.is_float else self.builder.sub, other)

    def __mul__(self, other):
        return self._call(self.builder.fmul, other)

    def __truediv__(self, other):
        return self._call(self.builder.fdiv, other)

    def __and__(self, other):
        return self._call(self.builder.and_, other)

    def __xor__(self, other):
        return self._call(self.builder.xor, other)

    @property
    def is_float(self):
        """Whether the entries are floating-point numbers."""
        return not isinstance(self.value.type.element, ir.IntType)

    def compare(self, sign, other):
        """Bits that say where ``self sign other`` holds."""
        compare = self.builder.fcmp_ordered if self.is_float else self.builder.icmp_signed
        return Vector(self.builder, compare(sign, self.value, other.value))

    def choose(self, yes, no):
        """`yes` where this vector of bits is one."""
        return Vector(self.builder, self.builder.select(self.value, yes.value, no.value))

    def minimum(self, other):
        """The lesser of two numbers."""
        return self.compare("<", other).choose(self, other)

    def maximum(self, other):
        """The greater of two numbers."""
        return self.compare(">", other).choose(self, other)

    def apply(self, name):
        """An intrinsic function of LLVM, such as "llvm.floor"."""
        kind = self.value.type
        name = f"{name}.v{kind.count}{kind.element.intrinsic_name}"
        function = cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(kind, [kind]), name)
        return Vector(self.builder, self.builder.call(function, [self.value]))

    def integers(self):
        """Whole numbers as int32."""
        kind = ir.VectorType(ir.IntType(32), self.value.type.count)
        return Vector(self.builder, self.builder.fptosi(self.value, kind))

    def constant(self, number):
        """A number in every lane, of the same type."""
        kind = self.value.type
        return Vector(self.builder, ir.Constant(kind, [ir.Constant(kind.element, number)] * kind.count))


@no_type_check
def row_pointer(context, builder, kind, array, row):
    """Address of 16 numbers, those from ``16 row`` on in the memory of an array, and its type."""
    data = context.make_array(kind)(context, builder, array).data
    vector = ir.VectorType(context.get_value_type(kind.dtype), LANES)
    return builder.gep(builder.bitcast(data, vector.as_pointer()), [row])


@no_type_check
def _load(context, builder, kind, array, row):
    """Row of an array."""
    return Vector(builder, builder.load(row_pointer(context, builder, kind, array, row), align=4))


@no_type_check
def _store(context, builder, kind, array, row, vector):
    """Write the row of an array."""
    builder.store(vector.value, row_pointer(context, builder, kind, array, row), align=4)


@no_type_check
def _joined(rows):
    """Least sums of two parts with an even and an odd total, from their rows: even, odd, even, odd."""
    a, b, c, d = rows
    return (a + c).minimum(b + d), (a + d).minimum(b + c)


@intrinsic
@no_type_check
def join(typing, one, i, other, j, out, k):
    """Rows 2 k and 2 k + 1 of `out`: least sums with even and odd total of those of `one` and `other`."""

    def emit(context, builder, signature, arguments):
        kinds = signature.args
        rows = _both(context, builder, kinds[0], *arguments[0:2]) + _both(context, builder, kinds[2], *arguments[2:4])
        _store_both(context, builder, kinds[4], arguments[4], arguments[5], _joined(rows))
        return context.get_dummy_value()

    return types.void(one, i, other, j, out, k), emit


@intrinsic
@no_type_check
def least(typing, one, i, other, j, out, k):
    """As `join`, where that is less than what the rows hold."""

    def emit(context, builder, signature, arguments):
        kinds = signature.args
        rows = _both(context, builder, kinds[0], *arguments[0:2]) + _both(context, builder, kinds[2], *arguments[2:4])
        held = _both(context, builder, kinds[4], *arguments[4:6])
        found = [new.minimum(old) for new, old in zip(_joined(rows), held, strict=True)]
        _store_both(context, builder, kinds[4], arguments[4], arguments[5], found)
        return context.get_dummy_value()

    return types.void(one, i, other, j, out, k), emit


@no_type_check
def _both(context, builder, kind, array, pair):
    """Rows 2 pair and 2 pair + 1."""
    first = builder.shl(pair, ir.Constant(pair.type, 1))
    return [_load(context, builder, kind, array, row) for row in (first, builder.or_(first, ir.Constant(pair.type, 1)))]


@no_type_check
def _store_both(context, builder, kind, array, pair, vectors):
    """Write rows 2 pair and 2 pair + 1."""
    first = builder.shl(pair, ir.Constant(pair.type, 1))
    for row, vector in zip((first, builder.or_(first, ir.Constant(pair.type, 1))), vectors, strict=True):
        _store(context, builder, kind, array, row, vector)


@intrinsic
@no_type_check
def keep(typing, one, i, other, j, best, index, name):
    """Where the sum of two rows is less than `best`, that sum becomes `best` and `name` the index."""

    def emit(context, builder, signature, arguments):
        kinds, zero = signature.args, ir.Constant(arguments[1].type, 0)
        cost = _load(context, builder, kinds[0], *arguments[0:2]) + _load(context, builder, kinds[2], *arguments[2:4])
        held = _load(context, builder, kinds[4], arguments[4], zero)
        names = _load(context, builder, kinds[5], arguments[5], zero)
        name = builder.trunc(arguments[6], names.value.type.element)
        every = Vector(builder, ir.Constant(names.value.type, ir.Undefined))
        for lane in range(LANES):
            every.value = builder.insert_element(every.value, name, ir.Constant(ir.IntType(32), lane))
        better = cost.compare("<", held)
        _store(context, builder, kinds[4], arguments[4], zero, better.choose(cost, held))
        _store(context, builder, kinds[5], arguments[5], zero, better.choose(every, names))
        return context.get_dummy_value()

    return types.void(one, i, other, j, best, index, name), emit


@intrinsic
@no_type_check
def spread(typing, x, i, residue, residues, out, k):
    """Rows 2 k and 2 k + 1 of `out`: squared distance of row i of `x` from residue + residues q, q even or odd.

    `residue` and `residues` are arrays of a number; the second is a power of two.
    """

    def emit(context, builder, signature, arguments):
        kinds, zero = signature.args, ir.Constant(arguments[1].type, 0)
        value, start, modulus = (
            _load(context, builder, kinds[n], arguments[n], row) for n, row in ((0, arguments[1]), (2, zero), (3, zero))
        )
        offset = value - start
        q = (offset / modulus + offset.constant(0.5)).apply("llvm.floor")
        error = (offset - modulus * q).apply("llvm.fabs")
        rest = modulus - error
        near, far = error * error, rest * rest
        whole = q.integers()
        odd = (whole & whole.constant(1)).compare("!=", whole.constant(0))
        _store_both(
            context, builder, kinds[4], arguments[4], arguments[5], (odd.choose(far, near), odd.choose(near, far))
        )
        return context.get_dummy_value()

    return types.void(x, i, residue, residues, out, k), emit
