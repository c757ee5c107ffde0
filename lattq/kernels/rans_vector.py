"""Sixteen symbols of interleaved asymmetric numeral systems at once, in vector instructions.

As in `lattq.kernels.lanes`, LLVM lowers them to whatever the processor has; the plain form is `lattq.kernels.rans`. The
function here is compiled into those that call it: after a change here, compiled files of callers must be removed.
"""

from typing import no_type_check  # a function wrapped for run-time checks would not compile

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

__all__ = ["LANES", "ODD", "SLOT_BITS", "sixteen", "sixteen_coded", "sixteen_low", "sixteen_low_coded"]

LANES = 16
SLOT_BITS = 13
ODD = 1 << 63  # set in what `sixteen` returns where a symbol has more to it
BIT, SHORT, WORD, LONG = (ir.IntType(bits) for bits in (1, 16, 32, 64))


@no_type_check
def _vector(kind):
    return ir.VectorType(kind, LANES)


@no_type_check
def _constant(number, kind=WORD):
    return ir.Constant(_vector(kind), [ir.Constant(kind, number)] * LANES)


@no_type_check
def _call(builder, name, result, *arguments):
    signature = ir.FunctionType(result, [one.type for one in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), arguments)


@no_type_check
def _gathered(builder, base, index):
    """Entries of an array, at a vector of places."""
    kind = base.type.pointee
    start = builder.insert_element(ir.Constant(_vector(LONG), ir.Undefined), builder.ptrtoint(base, LONG), WORD(0))
    start = builder.shuffle_vector(start, start, _constant(0))
    offset = builder.shl(builder.zext(index, _vector(LONG)), _constant({16: 1, 32: 2}[kind.width], LONG))
    places = builder.inttoptr(builder.add(start, offset), _vector(base.type))
    name = f"llvm.masked.gather.v{LANES}i{kind.width}.v{LANES}p0i{kind.width}"
    empty = ir.Constant(_vector(kind), ir.Undefined)
    return _call(builder, name, _vector(kind), places, WORD(kind.width // 8), _constant(1, BIT), empty)


@no_type_check
def _refilled(builder, x, words):
    """States of which those below 2^16 have taken a word, one after the other; and which have."""
    need = builder.icmp_unsigned("<", x, _constant(1 << 16))
    taken = _call(builder, f"llvm.masked.expandload.v{LANES}i16", _vector(SHORT), words, need, _constant(0, SHORT))
    longer = builder.or_(builder.shl(x, _constant(16)), builder.zext(taken, _vector(WORD)))
    return builder.select(need, longer, x), builder.bitcast(need, SHORT)


@no_type_check
def _row(context, builder, signature, arguments, n, place, kind):
    """Pointer to sixteen entries of argument `n`."""
    data = context.make_array(signature.args[n])(context, builder, arguments[n]).data
    return builder.bitcast(builder.gep(data, [place]), _vector(kind).as_pointer())


@no_type_check
def _further(builder, p, taken):
    """Where the words go on."""
    return builder.add(p, builder.zext(_call(builder, "llvm.ctpop.i16", SHORT, taken), LONG))


@intrinsic
@no_type_check
def sixteen_low(typing, words, p, states, lane, kinds, at, found):
    """Put the low bits of 16 symbols behind what `sixteen` has `found`: at most 16 bits each, and no escapes.

    There must be 16 words from `p` on. Returns where they go on.
    """
    signature = types.uint64(words, p, states, lane, kinds, at, found)

    def emit(context, builder, signature, arguments):
        def row(n, place, kind):
            return _row(context, builder, signature, arguments, n, place, kind)

        words, (p, lane, at) = context.make_array(signature.args[0]), (arguments[i] for i in (1, 3, 5))
        x = builder.load(row(2, lane, WORD), align=4)
        size = builder.and_(builder.load(row(4, at, WORD), align=4), _constant(31))
        bits = builder.and_(x, builder.sub(builder.shl(_constant(1), size), _constant(1)))
        start = builder.gep(words(context, builder, arguments[0]).data, [p])
        x, taken = _refilled(builder, builder.lshr(x, size), start)
        builder.store(x, row(2, lane, WORD), align=4)
        high = builder.load(row(6, at, LONG), align=8)
        wide = (builder.zext(one, _vector(LONG)) for one in (size, bits))
        builder.store(builder.or_(builder.shl(high, next(wide)), next(wide)), row(6, at, LONG), align=8)
        return _further(builder, p, taken)

    return signature, emit


@intrinsic
@no_type_check
def sixteen(typing, words, p, states, lane, kinds, at, slots, entries, values, found):
    """Decode what tables hold of 16 symbols, whose `kinds` begin at `at`, by the states from `lane` on; 32 bits each.

    There must be 16 words from `p` on. Writes `states` and `found` (64 bits), and returns where the words go on, with
    `ODD` set if a symbol is the least of 16 bits, an escape, or has low bits.
    """
    signature = types.uint64(words, p, states, lane, kinds, at, slots, entries, values, found)

    def emit(context, builder, signature, arguments):
        def data(n):
            return context.make_array(signature.args[n])(context, builder, arguments[n]).data

        def row(n, place, kind):
            return _row(context, builder, signature, arguments, n, place, kind)

        p, lane, at = arguments[1], arguments[3], arguments[5]
        x = builder.load(row(2, lane, WORD), align=4)
        kind = builder.load(row(4, at, WORD), align=4)
        slot = builder.and_(x, _constant((1 << SLOT_BITS) - 1))
        table = builder.shl(builder.lshr(kind, _constant(5)), _constant(SLOT_BITS))
        symbol = builder.zext(_gathered(builder, data(6), builder.or_(table, slot)), _vector(WORD))
        entry = _gathered(builder, data(7), symbol)
        value = _gathered(builder, data(8), symbol)
        x = builder.mul(builder.lshr(entry, _constant(16)), builder.lshr(x, _constant(SLOT_BITS)))
        x = builder.sub(builder.add(x, slot), builder.and_(entry, _constant(0xFFFF)))
        x, taken = _refilled(builder, x, builder.gep(data(0), [p]))
        builder.store(x, row(2, lane, WORD), align=4)
        builder.store(builder.sext(value, _vector(LONG)), row(9, at, LONG), align=8)
        escape = builder.icmp_signed("==", value, _constant(-(1 << 15), SHORT))
        more = builder.icmp_unsigned("!=", builder.and_(kind, _constant(31)), _constant(0))
        odd = builder.icmp_unsigned("!=", builder.bitcast(builder.or_(escape, more), SHORT), SHORT(0))
        return builder.or_(_further(builder, p, taken), builder.select(odd, LONG(ODD), LONG(0)))

    return signature, emit


@no_type_check
def _relieved(builder, x, full, words, p):
    """States of which those that are full have given a word away, and where the words begin then."""
    p = builder.sub(p, builder.zext(_call(builder, "llvm.ctpop.i16", SHORT, builder.bitcast(full, SHORT)), LONG))
    given, start = builder.trunc(x, _vector(SHORT)), builder.gep(words, [p])
    _call(builder, f"llvm.masked.compressstore.v{LANES}i16", ir.VoidType(), given, start, full)
    return builder.select(full, builder.lshr(x, _constant(16)), x), p


@intrinsic
@no_type_check
def sixteen_low_coded(typing, words, p, states, lane, kinds, at, symbols):
    """Encode the low bits of 16 symbols, at most 16 each: what `sixteen_low` undoes.

    Words are written before `p`, where there must be room for 16; returns where they begin.
    """
    signature = types.uint64(words, p, states, lane, kinds, at, symbols)

    def emit(context, builder, signature, arguments):
        def row(n, place, kind):
            return _row(context, builder, signature, arguments, n, place, kind)

        p, lane, at = (arguments[i] for i in (1, 3, 5))
        x = builder.load(row(2, lane, WORD), align=4)
        size = builder.and_(builder.load(row(4, at, WORD), align=4), _constant(31))
        symbol = builder.trunc(builder.load(row(6, at, LONG), align=8), _vector(WORD))
        bits = builder.and_(symbol, builder.sub(builder.shl(_constant(1), size), _constant(1)))
        over = builder.lshr(builder.lshr(x, builder.sub(_constant(31), size)), _constant(1))
        words = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        x, p = _relieved(builder, x, builder.icmp_unsigned("!=", over, _constant(0)), words, p)
        builder.store(builder.or_(builder.shl(x, size), bits), row(2, lane, WORD), align=4)
        return p

    return signature, emit


@intrinsic
@no_type_check
def sixteen_coded(typing, words, p, states, lane, entries, at):
    """Encode 16 symbols, whose `entries` begin at `at`, by the states from `lane` on: what `sixteen` undoes.

    Words are written before `p`, where there must be room for 16; returns where they begin. The quotient of integers
    below 2^32 and 2^13, as numbers of float64, is further than their rounding from every integer that it is not.
    """
    signature = types.uint64(words, p, states, lane, entries, at)

    def emit(context, builder, signature, arguments):
        def row(n, place, kind):
            return _row(context, builder, signature, arguments, n, place, kind)

        p, lane, at = (arguments[i] for i in (1, 3, 5))
        x = builder.load(row(2, lane, WORD), align=4)
        entry = builder.load(row(4, at, WORD), align=4)
        slots = builder.lshr(entry, _constant(16))
        full = builder.icmp_unsigned(">=", x, builder.shl(slots, _constant(32 - SLOT_BITS)))
        words = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        x, p = _relieved(builder, x, full, words, p)
        numbers = (builder.uitofp(one, _vector(ir.DoubleType())) for one in (x, slots))
        quotient = builder.fptoui(builder.fdiv(next(numbers), next(numbers)), _vector(WORD))
        rest = builder.sub(x, builder.mul(quotient, slots))
        x = builder.add(builder.shl(quotient, _constant(SLOT_BITS)), rest)
        builder.store(builder.add(x, builder.and_(entry, _constant(0xFFFF))), row(2, lane, WORD), align=4)
        return p

    return signature, emit
