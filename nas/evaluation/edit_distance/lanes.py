"""Rows of a small cost matrix as vector registers, for functions compiled by numba.

numba widens every small integer to 64 bits, so that its loops over 16 columns fill two to eight
registers. A `Lanes` value is a whole row of 16-bit costs in one; comparing two rows gives a bit
mask in an int64, in which sets of nodes are kept anyway. LLVM splits what a processor's registers
cannot hold, so the same code runs anywhere. After a change here, touch the file that uses it:
numba's cache on disk watches the file of the function that it compiles, and no other.

A `token` says how many lanes there are: an unsigned integer whose type has one bit per lane
(np.uint16(0) or np.uint64(0)). Costs are 16 bits wide with 16 lanes and 32 bits wide with 64 (see
`forbidden`).
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

_BIT, _INT32, _INT64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


class Lanes(types.Type):
    """The numba type of a row of `count` costs."""

    def __init__(self, count: int):
        self.count = count
        self.element = ir.IntType(16 if count == 16 else 32)
        self.vector = ir.VectorType(self.element, count)
        super().__init__(name=f"Lanes({count})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, lanes):
        super().__init__(manager, lanes, lanes.vector)


@intrinsic
def forbidden(typing, token):
    """The cost of a pair that must not be matched; half of it exceeds every sum of costs along an
    alternating path.

    With n nodes a cost in half units is at most 2 + 4 (n - 1), and a path has fewer than n of them:
    below 992 with 16 nodes and 16,256 with 64.
    """
    value = 16_000 if token.bitwidth == 16 else 1 << 24
    return types.int64(token), lambda context, builder, signature, arguments: _INT64(value)


@intrinsic
def load(typing, token, array, row):
    """Row `row` of a C-contiguous [rows, lanes] array."""
    lanes = Lanes(token.bitwidth)

    def generate(context, builder, signature, arguments):
        return builder.load(
            _row_pointer(context, builder, signature.args[1], *arguments[1:], lanes), align=2
        )

    return lanes(token, array, types.int64), generate


@intrinsic
def store(typing, array, row, value):
    """Writes `value` to row `row` of a C-contiguous [rows, lanes] array."""

    def generate(context, builder, signature, arguments):
        builder.store(
            arguments[2],
            _row_pointer(context, builder, signature.args[0], *arguments[:2], value),
            align=2,
        )
        return context.get_dummy_value()

    return types.void(array, types.int64, value), generate


@intrinsic
def splat(typing, token, value):
    """The same integer in every lane."""
    lanes = Lanes(token.bitwidth)
    return lanes(token, types.int64), lambda context, builder, signature, arguments: _splat(
        builder, arguments[1], lanes
    )


@intrinsic
def where(typing, bits, yes, no):
    """`yes` in the lanes whose bit is set, `no` in the others; one of the two may be an integer."""
    lanes = _lanes_of(yes, no)

    def generate(context, builder, signature, arguments):
        bits = (
            builder.trunc(arguments[0], ir.IntType(lanes.count))
            if lanes.count < 64
            else arguments[0]
        )
        return builder.select(
            builder.bitcast(bits, ir.VectorType(_BIT, lanes.count)),
            *_vectors(builder, signature, arguments, lanes),
        )

    return lanes(types.int64, *_operands(yes, no)), generate


def _arithmetic(combine):
    @intrinsic
    def operation(typing, left, right):
        lanes = _lanes_of(left, right)

        def generate(context, builder, signature, arguments):
            return combine(builder, *_vectors(builder, signature, arguments, lanes))

        return lanes(*_operands(left, right)), generate

    return operation


def _comparison(relation):
    @intrinsic
    def operation(typing, left, right):
        lanes = _lanes_of(left, right)

        def generate(context, builder, signature, arguments):
            mask = builder.icmp_signed(relation, *_vectors(builder, signature, arguments, lanes))
            bits = builder.bitcast(mask, ir.IntType(lanes.count))
            return builder.zext(bits, _INT64) if lanes.count < 64 else bits

        return types.int64(*_operands(left, right)), generate

    return operation


def _reduction(name):
    @intrinsic
    def operation(typing, row):
        def generate(context, builder, signature, arguments):
            kind = ir.FunctionType(row.element, [row.vector])
            full_name = f"llvm.vector.reduce.{name}.v{row.count}i{row.element.width}"
            result = builder.call(
                cgutils.get_or_insert_function(builder.module, kind, full_name), arguments
            )
            return builder.sext(result, _INT64)

        return types.int64(row), generate

    return operation


# Lane by lane; one operand may be an integer.
minimum = _arithmetic(lambda builder, a, b: builder.select(builder.icmp_signed("<", a, b), a, b))
maximum = _arithmetic(lambda builder, a, b: builder.select(builder.icmp_signed(">", a, b), a, b))
_add = _arithmetic(lambda builder, a, b: builder.add(a, b))
_subtract = _arithmetic(lambda builder, a, b: builder.sub(a, b))
# The set of lanes in which a relation holds, as bits.
at_most = _comparison("<=")
below = _comparison("<")
equal = _comparison("==")
# Over all lanes.
smallest = _reduction("smin")
total = _reduction("add")


@overload(operator.add)
def _overload_add(a, b):
    if isinstance(a, Lanes) or isinstance(b, Lanes):
        return lambda a, b: _add(a, b)


@overload(operator.sub)
def _overload_subtract(a, b):
    if isinstance(a, Lanes) or isinstance(b, Lanes):
        return lambda a, b: _subtract(a, b)


@intrinsic
def popcount(typing, bits):
    """Number of bits set."""
    return types.int64(types.int64), lambda context, builder, signature, arguments: builder.ctpop(
        arguments[0]
    )


@intrinsic
def lowest(typing, bits):
    """Position of the lowest bit set; there must be one."""
    return types.int64(types.int64), lambda context, builder, signature, arguments: builder.cttz(
        arguments[0], _BIT(1)
    )


def _lanes_of(*kinds):
    return next(kind for kind in kinds if isinstance(kind, Lanes))


def _operands(*kinds):
    return [kind if isinstance(kind, Lanes) else types.int64 for kind in kinds]


def _vectors(builder, signature, arguments, lanes):
    pairs = list(zip(signature.args, arguments, strict=True))[-2:]
    return [
        value if isinstance(kind, Lanes) else _splat(builder, value, lanes) for kind, value in pairs
    ]


def _splat(builder, value, lanes):
    undefined = lanes.vector(ir.Undefined)
    first = builder.insert_element(undefined, builder.trunc(value, lanes.element), _INT32(0))
    return builder.shuffle_vector(
        first, undefined, ir.VectorType(_INT32, lanes.count)([0] * lanes.count)
    )


def _row_pointer(context, builder, kind, array, row, lanes):
    data = context.make_array(kind)(context, builder, array).data
    start = builder.gep(data, [builder.mul(row, _INT64(lanes.count))])
    return builder.bitcast(start, lanes.vector.as_pointer())
