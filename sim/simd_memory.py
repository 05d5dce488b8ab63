"""Sixteen numbers at once, from arrays and back: neighbours, rows, gathered places, and what the cache should bring soon.

Knows numba's extension interface and LLVM's vectors; knows nothing about sensors. `load(array, i)` and `load2(array, i, j)` read
sixteen neighbours of a float32 or integer array in C order (whose integers become int32), `store` and `store2` write them. Nobody
checks indices: sixteen elements from the given place on must be there.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from sim.simd import FLOATS, INTS, WIDTH, splat_vector, wants

_FLOAT, _INT, _BIT = ir.FloatType(), ir.IntType(32), ir.IntType(1)
_FLOATS, _INTS = FLOATS.vector, INTS.vector
_ROW = 8  # floats of a row that `load_rows` turns into lanes


def _kind_of(array: Any) -> Any:
    wants(
        isinstance(array, types.Array) and array.layout == "C",
        f"lanes are read from arrays in C order, not from {array}",
    )
    if array.dtype == types.float32:
        return FLOATS
    whole = (types.int32, types.uint8, types.uint16, types.uint32)
    wants(array.dtype in whole, f"lanes are of float32, int32, uint8, uint16 or uint32, not {array.dtype}")
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
    wants(isinstance(array, types.Array) and array.ndim == 1, f"load takes an array of one dimension, got {array}")
    return _kind_of(array)(array, i), _emit_load(1)


@intrinsic
def load2(typingctx, array, i, j):  # type: ignore[no-untyped-def]
    """Elements (i, j) to (i, j + 15) of a two-dimensional array."""
    wants(isinstance(array, types.Array) and array.ndim == 2, f"load2 takes an array of two dimensions, got {array}")
    return _kind_of(array)(array, i, j), _emit_load(2)


@intrinsic
def store(typingctx, array, i, value):  # type: ignore[no-untyped-def]
    """Write elements i to i + 15 of a one-dimensional array; of integers into narrower ones, the low bits."""
    wants(isinstance(array, types.Array) and array.ndim == 1, f"store takes an array of one dimension, got {array}")
    wants(_kind_of(array) == value, f"store of {value} into {array}")
    return types.none(array, i, value), _emit_store(1)


@intrinsic
def store2(typingctx, array, i, j, value):  # type: ignore[no-untyped-def]
    """Write elements (i, j) to (i, j + 15) of a two-dimensional array; of integers into narrower ones, the low bits."""
    wants(isinstance(array, types.Array) and array.ndim == 2, f"store2 takes an array of two dimensions, got {array}")
    wants(_kind_of(array) == value, f"store2 of {value} into {array}")
    return types.none(array, i, j, value), _emit_store(2)


@intrinsic
def store_rgb(typingctx, image, v, u, words):  # type: ignore[no-untyped-def]
    """Write pixels (v, u) to (v, u + 15) of image (H, W, 3) uint8: the three low bytes of each of sixteen integers."""
    wants(
        isinstance(image, types.Array) and image.ndim == 3 and image.dtype == types.uint8 and image.layout == "C",
        f"store_rgb takes an array (H, W, 3) uint8 in C order, got {image}",
    )
    wants(words == INTS, f"store_rgb takes int32 lanes, got {words}")
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
    wants(
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
    return builder.and_(words, splat_vector(builder, ir.Constant(_INT, (1 << bits) - 1), _INTS))


@intrinsic
def gather(typingctx, array, at):  # type: ignore[no-untyped-def]
    """Elements of an array in C order at the places `at`, int32 lanes that count all its elements and are not negative.

    Of elements of 8 or 16 bits the three or two bytes behind are read with them: they must be there."""
    wants(at == INTS, f"gather takes int32 lanes as places, got {at}")
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
    wants(at == INTS, f"gather_pair takes int32 lanes as places, got {at}")
    wants(_kind_of(array) == INTS and array.dtype in (types.uint16, types.uint32), f"no pairs are read from {array}")
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
            half = splat_vector(builder, ir.Constant(_INT, 16), _INTS)
            low = builder.and_(words, splat_vector(builder, ir.Constant(_INT, 0xFFFF), _INTS))
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
    wants(isinstance(array, types.Array) and array.ndim == 2, f"prefetch takes an array of two dimensions, got {array}")

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
    wants(at == INTS, f"prefetch_places takes int32 lanes as places, got {at}")
    wants(isinstance(array, types.Array), f"prefetch_places takes an array, got {array}")

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
    wants(
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
