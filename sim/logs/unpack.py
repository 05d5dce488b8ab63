"""Decompression that ends at a limit, for a few bytes can hold gigabytes of zeros. Knows bz2, lz4 and zstd; knows no containers."""

from __future__ import annotations

import bz2
import io

import lz4.frame  # type: ignore[import-untyped]
import zstandard

MAX_UNPACKED_BYTES = 1 << 30
MAX_WINDOW_BYTES = 1 << 27


def unpacked(packed: bytes, compression: str, size: int) -> bytes:
    """What was compressed, of which a header says that it has `size` bytes. No more than that, and a byte, is made.

    Args:
        compression: "bz2", "lz4" (frames), "zstd", or "" and "none".

    Raises:
        ValueError: the size is above MAX_UNPACKED_BYTES, the data hold more, or nobody knows the compression.
        Exception: whatever the libraries make of damaged data.
    """
    if size > MAX_UNPACKED_BYTES:
        raise ValueError(f"it announces {size} bytes, more than the {MAX_UNPACKED_BYTES} allowed")
    match compression:
        case "" | "none":
            data = packed
        case "bz2":
            data = bz2.BZ2Decompressor().decompress(packed, max_length=size + 1)
        case "lz4":
            data = lz4.frame.LZ4FrameDecompressor().decompress(packed, max_length=size + 1)
        case "zstd":
            decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
            data = decompressor.stream_reader(io.BytesIO(packed), read_across_frames=True).read(size + 1)
        case _:
            raise ValueError(f"compression {compression!r} is not one of bz2, lz4, zstd and none")
    if len(data) > size:
        raise ValueError(f"it announces {size} bytes and holds more")
    return data


def unpacked_zstd(packed: bytes) -> bytes:
    """The same of one zstd frame, whose own head says how much it holds, or at most MAX_UNPACKED_BYTES where it does not."""
    size = zstandard.frame_content_size(packed)
    return unpacked(packed, "zstd", size if size >= 0 else MAX_UNPACKED_BYTES)
