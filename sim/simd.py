"""Sixteen numbers at once, for kernels: values that fill one or two vector registers, with the usual operators.

Knows numba's extension interface and LLVM's vectors; knows nothing about sensors. Whether LLVM turns a loop over an array into
vector instructions depends on its types, on the processor and on how many arrays may overlap, and rows that are shorter than a
few vectors never run the vector part. A kernel that is written with these values is vector code on every processor:
sixteen float32 (`FLOATS`), int32 (`INTS`) or truth values (`MASKS`). Operations are those of IEEE 754 as written,
one by one, whatever the width of the processor's registers; `fma` and `blend` round once where two operations would twice.

Inside kernels: `load(array, i)` and `load2(array, i, j)` read sixteen neighbours of a float32 or integer array in C order (whose
integers become int32), `store` and `store2` write them; `where(mask, a, b)` chooses lane by lane; `splat(x)` is sixteen times x.
`+ - * /`, comparisons, `& | ^ << >> ~` and `abs` work between lanes, and between lanes and a scalar of the same type. Nobody
checks indices: sixteen elements from the given place on must be there.
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
_ROW = 8  # floats of a row that `load_rows` turns into lanes

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


def _splat(builder: Any, value: Any, vector: Any) -> Any:
    """A scalar in all lanes."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_INT, 0))
    order = ir.Constant(ir.VectorType(_INT, WIDTH), [ir.Constant(_INT, 0)] * WIDTH)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), order)


def _as_lanes(context: Any, builder: Any, value: Any, numba_type: Any, kind: Any) -> Any:
    """A value of that kind or of its scalar, as lanes."""
    if numba_type == kind:
        return value
    return _splat(builder, context.cast(builder, value, numba_type, kind.scalar), kind.vector)


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


def _wants(condition: bool, sentence: str) -> None:
    if not condition:
        raise TypingError(sentence)


def _unary(name: str, source: Any, result: Any, emit: Callable[[Any, Any], Any], text: str) -> Any:
    """A function of one lanes value."""

    def typed(typingctx: Any, value: Any) -> Any:
        _wants(value == source, f"{name} takes {source}, got {value}")
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
    _wants(_fits(value, kind), f"splat takes float32 or an integer, got {value}")

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _as_lanes(context, builder, args[0], value, kind)

    return kind(value), emit


@intrinsic
def where(typingctx, mask, yes, no):  # type: ignore[no-untyped-def]
    """Lane by lane, yes where mask is true, else no; one of them may be a scalar."""
    kind = next((k for k in _KINDS if k in (yes, no)), None)
    _wants(
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
        _wants(kind is not None and _fits(a, kind) and _fits(b, kind), f"{name} takes lanes, got {a}, {b}")

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
        _wants(
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
    _wants(isinstance(bit, types.IntegerLiteral), f"signs takes a constant, got {bit}")
    which = bit.literal_value
    numbers = ir.Constant(_FLOATS, [ir.Constant(_FLOAT, 1.0 if k & which else -1.0) for k in range(WIDTH)])
    return FLOATS(bit), lambda context, builder, sig, args: numbers


def _kind_of(array: Any) -> Any:
    _wants(
        isinstance(array, types.Array) and array.layout == "C",
        f"lanes are read from arrays in C order, not from {array}",
    )
    if array.dtype == types.float32:
        return FLOATS
    whole = (types.int32, types.uint8, types.uint16, types.uint32)
    _wants(array.dtype in whole, f"lanes are of float32, int32, uint8, uint16 or uint32, not {array.dtype}")
    return INTS


def _place(context: Any, builder: Any, sig: Any, args: Any, indices: int) -> tuple[Any, Any]:
    """Pointer to sixteen elements of the array in args[0], and their type."""
    array = context.make_array(sig.args[0])(context, builder, args[0])
    at = [
        context.cast(builder, v, t, types.intp)
        for v, t in zip(args[1 : 1 + indices], sig.args[1 : 1 + indices], strict=True)
    ]
    pointer = cgutils.get_item_pointer(context, builder, sig.args[0], array, at, wraparound=False)
    element = ir.VectorType(context.get_data_type(sig.args[0].dtype), WIDTH)
    return builder.bitcast(pointer, element.as_pointer()), element


def _emit_load(indices: int) -> Any:
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer, _ = _place(context, builder, sig, args, indices)
        value = builder.load(pointer, align=1)
        return value if value.type in (_FLOATS, _INTS) else builder.zext(value, _INTS)

    return emit


def _emit_store(indices: int) -> Any:
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer, element = _place(context, builder, sig, args, indices)
        value = args[-1]
        if value.type != element:
            value = builder.trunc(value, element)
        builder.store(value, pointer, align=1)
        return context.get_dummy_value()

    return emit


@intrinsic
def load(typingctx, array, i):  # type: ignore[no-untyped-def]
    """Elements i to i + 15 of a one-dimensional array."""
    _wants(isinstance(array, types.Array) and array.ndim == 1, f"load takes an array of one dimension, got {array}")
    return _kind_of(array)(array, i), _emit_load(1)


@intrinsic
def load2(typingctx, array, i, j):  # type: ignore[no-untyped-def]
    """Elements (i, j) to (i, j + 15) of a two-dimensional array."""
    _wants(isinstance(array, types.Array) and array.ndim == 2, f"load2 takes an array of two dimensions, got {array}")
    return _kind_of(array)(array, i, j), _emit_load(2)


@intrinsic
def store(typingctx, array, i, value):  # type: ignore[no-untyped-def]
    """Write elements i to i + 15 of a one-dimensional array; of integers into narrower ones, the low bits."""
    _wants(isinstance(array, types.Array) and array.ndim == 1, f"store takes an array of one dimension, got {array}")
    _wants(_kind_of(array) == value, f"store of {value} into {array}")
    return types.none(array, i, value), _emit_store(1)


@intrinsic
def store2(typingctx, array, i, j, value):  # type: ignore[no-untyped-def]
    """Write elements (i, j) to (i, j + 15) of a two-dimensional array; of integers into narrower ones, the low bits."""
    _wants(isinstance(array, types.Array) and array.ndim == 2, f"store2 takes an array of two dimensions, got {array}")
    _wants(_kind_of(array) == value, f"store2 of {value} into {array}")
    return types.none(array, i, j, value), _emit_store(2)


@intrinsic
def store_rgb(typingctx, image, v, u, words):  # type: ignore[no-untyped-def]
    """Write pixels (v, u) to (v, u + 15) of image (H, W, 3) uint8: the three low bytes of each of sixteen integers."""
    _wants(
        isinstance(image, types.Array) and image.ndim == 3 and image.dtype == types.uint8 and image.layout == "C",
        f"store_rgb takes an array (H, W, 3) uint8 in C order, got {image}",
    )
    _wants(words == INTS, f"store_rgb takes int32 lanes, got {words}")
    byte = ir.IntType(8)
    order = ir.Constant(
        ir.VectorType(_INT, 3 * WIDTH), [ir.Constant(_INT, 4 * k + c) for k in range(WIDTH) for c in range(3)]
    )

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array = context.make_array(sig.args[0])(context, builder, args[0])
        zero = context.get_constant(types.intp, 0)
        at = [*(context.cast(builder, args[k], sig.args[k], types.intp) for k in (1, 2)), zero]
        pointer = cgutils.get_item_pointer(context, builder, sig.args[0], array, at, wraparound=False)
        every = builder.bitcast(args[3], ir.VectorType(byte, 4 * WIDTH))
        packed = builder.shuffle_vector(every, ir.Constant(every.type, ir.Undefined), order)
        builder.store(packed, builder.bitcast(pointer, packed.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.none(image, v, u, words), emit


@intrinsic
def store_rows(typingctx, array, row, columns):  # type: ignore[no-untyped-def]
    """Write rows row to row + 15 of array (N, 2 to 4) in C order; columns: as many lanes as it has columns, in a tuple."""
    count = len(columns) if isinstance(columns, types.UniTuple) else 0  # type: ignore[attr-defined]
    _wants(
        isinstance(array, types.Array) and array.ndim == 2 and 2 <= count <= 4 and _kind_of(array) == columns.dtype,
        f"store_rows takes an array of two dimensions and two to four lanes of its type, got {array} and {columns}",
    )

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pad = [ir.Constant(columns.dtype.vector, ir.Undefined)] * (4 - count)
        parts = [*cgutils.unpack_tuple(builder, args[2], count), *pad]
        both = ir.Constant(ir.VectorType(_INT, 2 * WIDTH), [ir.Constant(_INT, n) for n in range(2 * WIDTH)])
        pairs = [builder.shuffle_vector(a, b, both) for a, b in (parts[:2], parts[2:])]
        order = [ir.Constant(_INT, WIDTH * c + k) for k in range(WIDTH) for c in range(count)]
        rows = builder.shuffle_vector(*pairs, ir.Constant(ir.VectorType(_INT, len(order)), order))
        struct = context.make_array(sig.args[0])(context, builder, args[0])
        at = [context.cast(builder, args[1], sig.args[1], types.intp), context.get_constant(types.intp, 0)]
        pointer = cgutils.get_item_pointer(context, builder, sig.args[0], struct, at, wraparound=False)
        builder.store(rows, builder.bitcast(pointer, rows.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.none(array, row, columns), emit


def _gather_words(context: Any, builder: Any, data: Any, at: Any, step: int, vector: Any) -> Any:
    """Words of four bytes that begin `at` times `step` bytes after `data`, by one instruction; None where the processor that is
    compiled for has none."""
    if "+avx512f" not in context.codegen().magic_tuple()[2]:
        return None
    byte, mask = ir.IntType(8).as_pointer(), ir.VectorType(_BIT, WIDTH)
    name = f"llvm.x86.avx512.mask.gather.dp{'s' if vector == _FLOATS else 'i'}.512"
    kind = ir.FunctionType(vector, [vector, byte, _INTS, mask, _INT])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    nothing = ir.Constant(vector, [ir.Constant(vector.element, 0)] * WIDTH)
    every = ir.Constant(mask, [ir.Constant(_BIT, 1)] * WIDTH)
    return builder.call(function, [nothing, builder.bitcast(data, byte), at, every, ir.Constant(_INT, step)])


def _gather_narrow(context: Any, builder: Any, data: Any, at: Any, bits: int) -> Any:
    """The same for elements of 8 or 16 bits: the low end of the word that begins with each."""
    words = _gather_words(context, builder, data, at, bits // 8, _INTS)
    if words is None:
        return None
    return builder.and_(words, _splat(builder, ir.Constant(_INT, (1 << bits) - 1), _INTS))


@intrinsic
def gather(typingctx, array, at):  # type: ignore[no-untyped-def]
    """Elements of an array in C order at the places `at`, int32 lanes that count all its elements and are not negative.

    Of elements of 8 or 16 bits the three or two bytes behind are read with them: they must be there."""
    _wants(at == INTS, f"gather takes int32 lanes as places, got {at}")
    kind = _kind_of(array)
    narrow = array.dtype in (types.uint8, types.uint16)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        if narrow:
            result = _gather_narrow(context, builder, data, args[1], array.dtype.bitwidth)
        else:
            result = _gather_words(context, builder, data, args[1], 4, kind.vector)
        if result is not None:
            return result
        result = ir.Constant(kind.vector, ir.Undefined)
        for k in range(WIDTH):
            place = builder.zext(builder.extract_element(args[1], ir.Constant(_INT, k)), ir.IntType(64))
            value = builder.load(builder.gep(data, [place]))
            if narrow:
                value = builder.zext(value, _INT)
            result = builder.insert_element(result, value, ir.Constant(_INT, k))
        return result

    return kind(array, at), emit


@intrinsic
def gather_pair(typingctx, array, at):  # type: ignore[no-untyped-def]
    """Elements at the places `at` and those after them, of an array of uint16 or uint32, as two lanes: half the loads."""
    _wants(at == INTS, f"gather_pair takes int32 lanes as places, got {at}")
    _wants(_kind_of(array) == INTS and array.dtype in (types.uint16, types.uint32), f"no pairs are read from {array}")
    element = ir.IntType(array.dtype.bitwidth)
    both = ir.IntType(2 * array.dtype.bitwidth)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        words = _gather_words(context, builder, data, args[1], element.width // 8, _INTS)
        if words is not None and element.width == 32:
            after = builder.gep(data, [ir.Constant(ir.IntType(64), 1)])
            second = _gather_words(context, builder, after, args[1], 4, _INTS)
            return context.make_tuple(builder, sig.return_type, [words, second])
        if words is not None:
            half = _splat(builder, ir.Constant(_INT, 16), _INTS)
            low = builder.and_(words, _splat(builder, ir.Constant(_INT, 0xFFFF), _INTS))
            return context.make_tuple(builder, sig.return_type, [low, builder.lshr(words, half)])
        pairs = ir.Constant(ir.VectorType(both, WIDTH), ir.Undefined)
        for k in range(WIDTH):
            place = builder.zext(builder.extract_element(args[1], ir.Constant(_INT, k)), ir.IntType(64))
            pointer = builder.bitcast(builder.gep(data, [place]), both.as_pointer())
            pairs = builder.insert_element(pairs, builder.load(pointer, align=element.width // 8), ir.Constant(_INT, k))
        elements = builder.bitcast(pairs, ir.VectorType(element, 2 * WIDTH))
        undefined, result = ir.Constant(elements.type, ir.Undefined), []
        for first in (0, 1):
            order = ir.Constant(_INTS, [ir.Constant(_INT, 2 * k + first) for k in range(WIDTH)])
            value = builder.shuffle_vector(elements, undefined, order)
            result.append(value if value.type == _INTS else builder.zext(value, _INTS))
        return context.make_tuple(builder, sig.return_type, result)

    return types.UniTuple(INTS, 2)(array, at), emit  # type: ignore[attr-defined]


@intrinsic
def prefetch(typingctx, array, i):  # type: ignore[no-untyped-def]
    """Ask for row i of a two-dimensional array, of one or two cache lines, before it is read; changes
    nothing but the time that takes."""
    _wants(
        isinstance(array, types.Array) and array.ndim == 2, f"prefetch takes an array of two dimensions, got {array}"
    )

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        struct = context.make_array(sig.args[0])(context, builder, args[0])
        row = context.cast(builder, args[1], sig.args[1], types.intp)
        columns = cgutils.unpack_tuple(builder, struct.shape, 2)[1]
        one = context.get_constant(types.intp, 1)
        for column in (context.get_constant(types.intp, 0), builder.sub(columns, one)):
            pointer = cgutils.get_item_pointer(context, builder, sig.args[0], struct, [row, column], wraparound=False)
            _ask_for(builder, pointer)
        return context.get_dummy_value()

    return types.none(array, i), emit


@intrinsic
def prefetch_places(typingctx, array, at):  # type: ignore[no-untyped-def]
    """Ask for what `gather` will read at the places `at` before it does; changes nothing but the time that takes."""
    _wants(at == INTS, f"prefetch_places takes int32 lanes as places, got {at}")
    _wants(isinstance(array, types.Array), f"prefetch_places takes an array, got {array}")

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        for k in range(WIDTH):
            place = builder.zext(builder.extract_element(args[1], ir.Constant(_INT, k)), ir.IntType(64))
            _ask_for(builder, builder.gep(data, [place]))
        return context.get_dummy_value()

    return types.none(array, at), emit


def _ask_for(builder: Any, pointer: Any) -> None:
    """The cache line of a pointer, to be read and kept close."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, _INT, _INT, _INT])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [builder.bitcast(pointer, byte), *(ir.Constant(_INT, n) for n in (0, 3, 1))])


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Eight vectors of eight float32 as a square, turned over: pairs of rows are interleaved, then pairs of pairs, then halves."""
    low, high = ((0, 8, 1, 9, 4, 12, 5, 13), (2, 10, 3, 11, 6, 14, 7, 15))
    low_pairs, high_pairs = ((0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15))
    low_half, high_half = ((0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15))

    def pick(a: Any, b: Any, order: tuple[int, ...]) -> Any:
        places = ir.Constant(ir.VectorType(_INT, len(order)), [ir.Constant(_INT, k) for k in order])
        return builder.shuffle_vector(a, b, places)

    singles = [pick(rows[k], rows[k + 1], order) for k in (0, 2, 4, 6) for order in (low, high)]
    pairs = [
        pick(singles[half + k], singles[half + k + 2], order)
        for half in (0, 4)
        for k in (0, 1)
        for order in (low_pairs, high_pairs)
    ]
    return [pick(pairs[k], pairs[k + 4], order) for order in (low_half, high_half) for k in range(4)]


@intrinsic
def load_rows(typingctx, array, order, rank, count):  # type: ignore[no-untyped-def]
    """The first eight columns, as lanes, of the rows of array (N, 8 or more) float32 that stand in places rank to rank + 15 of
    order (int32); beyond count, the last one again."""
    _wants(
        isinstance(array, types.Array) and array.ndim == 2 and _kind_of(array) == FLOATS and _kind_of(order) == INTS,
        f"load_rows takes an array of float32 with two dimensions and one of int32, got {array} and {order}",
    )

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        struct = context.make_array(sig.args[0])(context, builder, args[0])
        places = context.make_array(sig.args[1])(context, builder, args[1]).data
        first, number = (context.cast(builder, args[k], sig.args[k], types.intp) for k in (2, 3))
        last = builder.sub(number, context.get_constant(types.intp, 1))
        rows, zero = [], context.get_constant(types.intp, 0)
        for k in range(WIDTH):
            at = builder.add(first, context.get_constant(types.intp, k))
            at = builder.select(builder.icmp_signed("<", at, last), at, last)
            row = builder.sext(builder.load(builder.gep(places, [at])), ir.IntType(64))
            pointer = cgutils.get_item_pointer(context, builder, sig.args[0], struct, [row, zero], wraparound=False)
            rows.append(builder.load(builder.bitcast(pointer, ir.VectorType(_FLOAT, _ROW).as_pointer()), align=4))
        low, high = _transposed(builder, rows[:_ROW]), _transposed(builder, rows[_ROW:])
        both = ir.Constant(_INTS, [ir.Constant(_INT, k) for k in range(WIDTH)])
        columns = [builder.shuffle_vector(a, b, both) for a, b in zip(low, high, strict=True)]
        return context.make_tuple(builder, sig.return_type, columns)

    return types.UniTuple(FLOATS, _ROW)(array, order, rank, count), emit  # type: ignore[attr-defined]


@intrinsic
def lowest_bit(typingctx, bits):  # type: ignore[no-untyped-def]
    """Number of the lowest bit that is set in an integer other than 0."""
    _wants(isinstance(bits, types.Integer), f"lowest_bit takes an integer, got {bits}")
    return bits(bits), lambda context, builder, sig, args: builder.cttz(args[0], ir.Constant(_BIT, 1))


@intrinsic
def lane(typingctx, value, k):  # type: ignore[no-untyped-def]
    """Number k (0 to 15) of sixteen."""
    _wants(value in _KINDS, f"lane takes lanes, got {value}")

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.extract_element(args[0], context.cast(builder, args[1], sig.args[1], types.int32))

    return value.scalar(value, k), emit


@intrinsic
def shift_right(typingctx, value, bits):  # type: ignore[no-untyped-def]
    """IntLanes moved right by that many bits as if they were unsigned: zeros come in from the left."""
    _wants(
        value == INTS and isinstance(bits, types.Integer), f"shift_right takes int32 lanes and a number, got {value}"
    )

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.lshr(args[0], _as_lanes(context, builder, args[1], sig.args[1], INTS))

    return value(value, bits), emit
