"""One step of the Viterbi algorithm in instructions on vectors: 32 sequences at once, or 32 pairs of states of one.

As loops these would stay scalar: LLVM cannot prove that NumPy arrays do not overlap, nor turn a gather from four costs
into selects. The functions are compiled into the searches of `viterbi`: after a change here, compiled files there must
be removed.
"""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

__all__ = ["LANES", "butterflies", "butterfly"]

LANES = 32  # 16-bit costs in a vector, and a bit of each in a word
VECTOR, WORD = ir.VectorType(ir.IntType(16), LANES), ir.IntType(LANES)
ZERO = ir.Constant(VECTOR, [0] * LANES)


@no_type_check
def _address(context, builder, signature, arguments, array, index, kind):
    """Pointer to a vector or word of an array, counted in such."""
    data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
    return builder.gep(builder.bitcast(data, kind.as_pointer()), [index])


@no_type_check
def _merge(builder, low, high, same, other):
    """The cheaper of the two ways to each of two states, and where it is the one from the higher state."""
    found = []
    for a, b in ((same, other), (other, same)):
        through_low, through_high = builder.add(low, a), builder.add(high, b)
        better = builder.icmp_signed("<", builder.sub(through_high, through_low), ZERO)
        found.append((builder.select(better, through_high, through_low), better))
    return found


@intrinsic
@no_type_check
def butterfly(typing, cost, low, high, metric, same, other, survivors, start):
    """Update one pair of states of 32 sequences, and store who came from the higher one."""
    signature = types.void(cost, low, high, metric, same, other, survivors, start)

    def emit(context, builder, signature, arguments):
        def pointer(array, index, kind):
            return _address(context, builder, signature, arguments, array, index, kind)

        rows = arguments[1:3]
        costs = [pointer(0, row, VECTOR) for row in rows]
        low, high = (builder.load(p, align=2) for p in costs)
        same, other = (builder.load(pointer(3, row, VECTOR), align=2) for row in arguments[4:6])
        for (best, better), row, place in zip(_merge(builder, low, high, same, other), rows, costs, strict=True):
            builder.store(best, place, align=2)
            bits = pointer(6, builder.add(arguments[7], row), WORD)
            builder.store(builder.bitcast(better, WORD), bits, align=1)
        return context.get_dummy_value()

    return signature, emit


@intrinsic
@no_type_check
def butterflies(typing, cost, low, high, near, far, odd, upper, chunk, new, survivors, start):
    """Update 32 neighbouring pairs of states of one sequence, and store who came from the higher one.

    `near` and `far` are the costs of labels (0, 1) and (2, 3), `odd` and `upper` bits that tell which one a pair has.
    """
    signature = types.void(cost, low, high, near, far, odd, upper, chunk, new, survivors, start)

    def emit(context, builder, signature, arguments):
        def pointer(array, index, kind):
            return _address(context, builder, signature, arguments, array, index, kind)

        def spread(value):
            single = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(
                single, single, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            )

        bits = ir.VectorType(ir.IntType(1), LANES)
        odd, upper = (builder.bitcast(builder.load(pointer(i, arguments[7], WORD)), bits) for i in (5, 6))
        costs = [[spread(builder.extract_value(arguments[i], j)) for j in (0, 1)] for i in (3, 4)]
        near, far = (builder.select(odd, pair[1], pair[0]) for pair in costs)
        same, other = builder.select(upper, far, near), builder.select(upper, near, far)
        low, high = (builder.load(pointer(0, arguments[i], VECTOR), align=2) for i in (1, 2))
        found = _merge(builder, low, high, same, other)
        twice = builder.mul(arguments[7], arguments[7].type(2))
        for part in (0, 1):
            places = [x for i in range(LANES // 2) for x in (i + part * LANES // 2, LANES + i + part * LANES // 2)]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), places)
            index = builder.add(twice, twice.type(part))
            builder.store(builder.shuffle_vector(found[0][0], found[1][0], mask), pointer(8, index, VECTOR), align=2)
            word = pointer(9, builder.add(arguments[10], index), WORD)
            builder.store(builder.bitcast(found[part][1], WORD), word, align=4)
        return context.get_dummy_value()

    return signature, emit
