"""Sixteen numbers at once, for kernels: values that fill one or two vector registers, with the usual operators.

Knows numba's extension interface and LLVM's vectors; knows nothing about sensors. Whether LLVM turns a loop over an array into
vector instructions depends on its types, on the processor and on how many arrays may overlap, and rows that are shorter than a
few vectors never run the vector part. A kernel that is written with these values is vector code on every processor:
sixteen float32 (`FLOATS`), int32 (`INTS`) or truth values (`MASKS`). Operations are those of IEEE 754 as written,
one by one, whatever the width of the processor's registers; `fma` and `blend` round once where two operations would twice.

Inside kernels: `where(mask, a, b)` chooses lane by lane; `splat(x)` is sixteen times x. `+ - * /`, comparisons, `& | ^ << >> ~`
and `abs` work between lanes, and between lanes and a scalar of the same type. `simd_memory` brings them from arrays and back.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

WIDTH = 16  # a register of AVX-512, two of AVX2

_FLOAT, _INT, _BIT = ir.FloatType(), ir.IntType(32), ir.IntType(1)
_FLOATS, _INTS, _BITS = (ir.VectorType(t, WIDTH) for t in (_FLOAT, _INT, _BIT))


class LanesType(types.Type):
    """Sixteen float32."""

    vector, scalar = _FLOATS, types.float32

    def __init__(self) -> None:
        super().__init__(name=f"float32x{WIDTH}")


class IntLanesType(types.Type):
    """Sixteen int32; they wrap around."""

    vector, scalar = _INTS, types.int32

    def __init__(self) -> None:
        super().__init__(name=f"int32x{WIDTH}")


class MaskLanesType(types.Type):
    """Sixteen truth values."""

    vector, scalar = _BITS, types.boolean

    def __init__(self) -> None:
        super().__init__(name=f"boolx{WIDTH}")


FLOATS, INTS, MASKS = LanesType(), IntLanesType(), MaskLanesType()
_KINDS: tuple[Any, ...] = (FLOATS, INTS, MASKS)


def _model(kind: Any) -> None:
    class VectorModel(models.PrimitiveModel):  # type: ignore[misc]
        def __init__(self, manager: Any, numba_type: Any) -> None:
            super().__init__(manager, numba_type, kind.vector)

    register_model(type(kind))(VectorModel)


for _kind in _KINDS:
    _model(_kind)


def splat_vector(builder: Any, value: Any, vector: Any) -> Any:
    """A scalar in all lanes of a vector of that type, while a kernel is compiled."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_INT, 0))
    order = ir.Constant(ir.VectorType(_INT, WIDTH), [ir.Constant(_INT, 0)] * WIDTH)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), order)


def _as_lanes(context: Any, builder: Any, value: Any, numba_type: Any, kind: Any) -> Any:
    """A value of that kind or of its scalar, as lanes."""
    if numba_type == kind:
        return value
    return splat_vector(builder, context.cast(builder, value, numba_type, kind.scalar), kind.vector)


def _fits(numba_type: Any, kind: Any) -> bool:
    """Whether a value is of that kind, or a scalar that may stand beside it without losing anything."""
    if numba_type == kind or numba_type == kind.scalar:
        return True
    return kind == INTS and isinstance(numba_type, types.Integer) and not isinstance(numba_type, types.Boolean)


def _compare(op: str) -> Callable[[Any, Any, Any], Any]:
    def emit(builder: Any, a: Any, b: Any) -> Any:
        if a.type == _FLOATS:
            return builder.fcmp_unordered(op, a, b) if op == "!=" else builder.fcmp_ordered(op, a, b)
        return builder.icmp_signed(op, a, b)

    return emit


def _pick(floats: str, ints: str) -> Callable[[Any, Any, Any], Any]:
    return lambda builder, a, b: getattr(builder, floats if a.type == _FLOATS else ints)(a, b)


def _simple(name: str) -> Callable[[Any, Any, Any], Any]:
    return lambda builder, a, b: getattr(builder, name)(a, b)


_NUMBERS, _WHOLE = (FLOATS, INTS), (INTS, MASKS)
# operator: kinds it takes, what comes out (None: the same kind), what it becomes.
_OPERATORS: dict[Any, tuple[tuple[Any, ...], Any, Callable[[Any, Any, Any], Any]]] = {
    operator.add: (_NUMBERS, None, _pick("fadd", "add")),
    operator.sub: (_NUMBERS, None, _pick("fsub", "sub")),
    operator.mul: (_NUMBERS, None, _pick("fmul", "mul")),
    operator.truediv: ((FLOATS,), None, _simple("fdiv")),
    operator.and_: (_WHOLE, None, _simple("and_")),
    operator.or_: (_WHOLE, None, _simple("or_")),
    operator.xor: (_WHOLE, None, _simple("xor")),
    operator.lshift: ((INTS,), None, _simple("shl")),
    operator.rshift: ((INTS,), None, _simple("ashr")),
    operator.lt: (_NUMBERS, MASKS, _compare("<")),
    operator.le: (_NUMBERS, MASKS, _compare("<=")),
    operator.gt: (_NUMBERS, MASKS, _compare(">")),
    operator.ge: (_NUMBERS, MASKS, _compare(">=")),
    operator.eq: (_NUMBERS, MASKS, _compare("==")),
    operator.ne: (_NUMBERS, MASKS, _compare("!=")),
}
_IN_PLACE = {
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul,
    operator.itruediv: operator.truediv, operator.iand: operator.and_, operator.ior: operator.or_, operator.ixor: operator.xor,
}  # fmt: skip


def _register_operator(symbol: Any, meaning: Any) -> None:
    kinds, result, emit = _OPERATORS[meaning]

    @type_callable(symbol)
    def typing(context: Any) -> Any:
        def typer(a: Any, b: Any) -> Any:
            for kind in kinds:
                if (a == kind or b == kind) and _fits(a, kind) and _fits(b, kind):
                    return result or kind
            return None

        return typer

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = next(k for k in kinds if k in sig.args)
        a, b = (_as_lanes(context, builder, v, t, kind) for v, t in zip(args, sig.args, strict=True))
        return emit(builder, a, b)

    for kind in kinds:
        lower_builtin(symbol, type(kind), type(kind))(lower)
        scalar = types.Integer if kind == INTS else type(kind.scalar)
        lower_builtin(symbol, type(kind), scalar)(lower)
        lower_builtin(symbol, scalar, type(kind))(lower)


for _symbol in (*_OPERATORS, *_IN_PLACE):
    _register_operator(_symbol, _IN_PLACE.get(_symbol, _symbol))


@type_callable(operator.neg)
def _type_neg(context: Any) -> Any:
    return lambda a: a if a in _NUMBERS else None


@lower_builtin(operator.neg, LanesType)
def _lower_neg(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.fneg(args[0])


@lower_builtin(operator.neg, IntLanesType)
def _lower_int_neg(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.neg(args[0])


@type_callable(operator.invert)
def _type_invert(context: Any) -> Any:
    return lambda a: a if a in _WHOLE else None


@lower_builtin(operator.invert, IntLanesType)
@lower_builtin(operator.invert, MaskLanesType)
def _lower_invert(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.not_(args[0])


@type_callable(abs)
def _type_abs(context: Any) -> Any:
    return lambda a: a if a == FLOATS else None


@lower_builtin(abs, LanesType)
def _lower_abs(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return _call(builder, f"llvm.fabs.v{WIDTH}f32", args)


def _call(builder: Any, name: str, args: Any) -> Any:
    """One of LLVM's functions from lanes of float32 to the same."""
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * len(args)), name)
    return builder.call(function, args)


def wants(condition: bool, sentence: str) -> None:
    """Refuse types while a kernel is compiled."""
    if not condition:
        raise TypingError(sentence)


def _unary(name: str, source: Any, result: Any, emit: Callable[[Any, Any], Any], text: str) -> Any:
    """A function of one lanes value."""

    def typed(typingctx: Any, value: Any) -> Any:
        wants(value == source, f"{name} takes {source}, got {value}")
        return result(value), lambda context, builder, sig, args: emit(builder, args[0])

    typed.__name__, typed.__doc__ = name, text
    return intrinsic(typed)


def _bits(builder: Any, mask: Any) -> Any:
    return builder.bitcast(mask, ir.IntType(WIDTH))


sqrt = _unary(
    "sqrt", FLOATS, FLOATS, lambda b, v: _call(b, f"llvm.sqrt.v{WIDTH}f32", [v]), "Square root, correctly rounded."
)
floor = _unary(
    "floor", FLOATS, FLOATS, lambda b, v: _call(b, f"llvm.floor.v{WIDTH}f32", [v]), "The next lower whole number."
)
to_int = _unary(
    "to_int", FLOATS, INTS, lambda b, v: b.fptosi(v, _INTS), "Cut off towards 0; what int32 cannot hold is anything."
)
to_float = _unary("to_float", INTS, FLOATS, lambda b, v: b.sitofp(v, _FLOATS), "The nearest float32.")
mask_bits = _unary(
    "mask_bits", MASKS, types.int32, lambda b, v: b.zext(_bits(b, v), _INT), "Bit k of an int32 is lane k."
)
any_lane = _unary(
    "any_lane", MASKS, types.boolean,
    lambda b, v: b.icmp_unsigned("!=", _bits(b, v), ir.Constant(ir.IntType(WIDTH), 0)), "Whether one lane is true.",
)  # fmt: skip
all_lanes = _unary(
    "all_lanes", MASKS, types.boolean,
    lambda b, v: b.icmp_unsigned("==", _bits(b, v), ir.Constant(ir.IntType(WIDTH), 2**WIDTH - 1)), "Whether all are.",
)  # fmt: skip


def _first_false(builder: Any, mask: Any) -> Any:
    wide = builder.zext(builder.not_(_bits(builder, mask)), _INT)
    return builder.cttz(builder.or_(wide, ir.Constant(_INT, 1 << WIDTH)), ir.Constant(_BIT, 1))


first_false = _unary("first_false", MASKS, types.int32, _first_false, "The first lane that is false, 16 if none is.")


@intrinsic
def lane_numbers(typingctx):  # type: ignore[no-untyped-def]
    """0 to 15, int32."""
    numbers = ir.Constant(_INTS, [ir.Constant(_INT, k) for k in range(WIDTH)])
    return INTS(), lambda context, builder, sig, args: numbers


@intrinsic
def splat(typingctx, value):  # type: ignore[no-untyped-def]
    """A float32 or int32 in all lanes."""
    kind = FLOATS if value == types.float32 else INTS
    wants(_fits(value, kind), f"splat takes float32 or an integer, got {value}")

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _as_lanes(context, builder, args[0], value, kind)

    return kind(value), emit


@intrinsic
def where(typingctx, mask, yes, no):  # type: ignore[no-untyped-def]
    """Lane by lane, yes where mask is true, else no; one of them may be a scalar."""
    kind = next((k for k in _KINDS if k in (yes, no)), None)
    wants(
        mask == MASKS and kind is not None and _fits(yes, kind) and _fits(no, kind),
        f"where takes a mask and two values of one kind, got {mask}, {yes}, {no}",
    )

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, b = (_as_lanes(context, builder, v, t, kind) for v, t in zip(args[1:], sig.args[1:], strict=True))
        return builder.select(args[0], a, b)

    return kind(mask, yes, no), emit  # type: ignore[misc]


def _extreme(name: str, op: str, text: str) -> Any:
    """Lane by lane the one of two that compares so, the second where neither does: what one instruction does."""

    def typed(typingctx: Any, a: Any, b: Any) -> Any:
        kind = next((k for k in _NUMBERS if k in (a, b)), None)
        wants(kind is not None and _fits(a, kind) and _fits(b, kind), f"{name} takes lanes, got {a}, {b}")

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            x, y = (_as_lanes(context, builder, v, t, kind) for v, t in zip(args, sig.args, strict=True))
            return builder.select(_compare(op)(builder, x, y), x, y)

        return kind(a, b), emit  # type: ignore[misc]

    typed.__name__, typed.__doc__ = name, text
    return intrinsic(typed)


least = _extreme("least", "<", "The smaller one; the second if one is no number.")
greatest = _extreme("greatest", ">", "The larger one; the second if one is no number.")


def _of_all(name: str, op: str, text: str) -> Any:
    """A float32 of all lanes: halves are compared, then halves of these."""

    def emit(builder: Any, v: Any) -> Any:
        apart = WIDTH
        while apart > 1:
            apart //= 2
            order = ir.Constant(_INTS, [ir.Constant(_INT, (k + apart) % WIDTH) for k in range(WIDTH)])
            other = builder.shuffle_vector(v, ir.Constant(_FLOATS, ir.Undefined), order)
            v = builder.select(_compare(op)(builder, v, other), v, other)
        return builder.extract_element(v, ir.Constant(_INT, 0))

    return _unary(name, FLOATS, types.float32, emit, text)


smallest = _of_all("smallest", "<", "The smallest of all lanes, none of which may be no number.")
largest = _of_all("largest", ">", "The largest of all lanes, none of which may be no number.")


def _float_lanes(name: str, emit: Callable[[Any, Any], Any], text: str) -> Any:
    """A function of three values, lanes of float32 or one float32, at least one of them lanes."""

    def typed(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
        given = (a, b, c)
        wants(
            FLOATS in given and all(_fits(t, FLOATS) for t in given), f"{name} takes float32 lanes, got {a}, {b}, {c}"
        )

        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return emit(
                builder, [_as_lanes(context, builder, v, t, FLOATS) for v, t in zip(args, sig.args, strict=True)]
            )

        return FLOATS(a, b, c), lower

    typed.__name__, typed.__doc__ = name, text
    return intrinsic(typed)


def _fma(builder: Any, args: Any) -> Any:
    return _call(builder, f"llvm.fma.v{WIDTH}f32", args)


# Asked for where it is meant: left to LLVM, it would depend on what a kernel is inlined into.
fma = _float_lanes("fma", _fma, "a * b + c, rounded once; one instruction where the processor has it.")
blend = _float_lanes(
    "blend",
    lambda b, v: _fma(b, [v[2], b.fsub(v[1], v[0]), v[0]]),
    "a + share * (b - a), the product rounded with the sum.",
)


@intrinsic
def signs(typingctx, bit):  # type: ignore[no-untyped-def]
    """1 in the lanes whose number has that bit (1, 2 or 4, a constant) set, -1 in the others: the corners of a box."""
    wants(isinstance(bit, types.IntegerLiteral), f"signs takes a constant, got {bit}")
    which = bit.literal_value
    numbers = ir.Constant(_FLOATS, [ir.Constant(_FLOAT, 1.0 if k & which else -1.0) for k in range(WIDTH)])
    return FLOATS(bit), lambda context, builder, sig, args: numbers


@intrinsic
def lowest_bit(typingctx, bits):  # type: ignore[no-untyped-def]
    """Number of the lowest bit that is set in an integer other than 0."""
    wants(isinstance(bits, types.Integer), f"lowest_bit takes an integer, got {bits}")
    return bits(bits), lambda context, builder, sig, args: builder.cttz(args[0], ir.Constant(_BIT, 1))


@intrinsic
def lane(typingctx, value, k):  # type: ignore[no-untyped-def]
    """Number k (0 to 15) of sixteen."""
    wants(value in _KINDS, f"lane takes lanes, got {value}")

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.extract_element(args[0], context.cast(builder, args[1], sig.args[1], types.int32))

    return value.scalar(value, k), emit


@intrinsic
def shift_right(typingctx, value, bits):  # type: ignore[no-untyped-def]
    """IntLanes moved right by that many bits as if they were unsigned: zeros come in from the left."""
    wants(value == INTS and isinstance(bits, types.Integer), f"shift_right takes int32 lanes and a number, got {value}")

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.lshr(args[0], _as_lanes(context, builder, args[1], sig.args[1], INTS))

    return value(value, bits), emit
