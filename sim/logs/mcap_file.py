"""Messages of any MCAP file in time order, complete or cut off.

Knows the container (https://mcap.dev/spec); knows nothing about what messages mean. The index at the end of the file
is not relied on: one pass over the record headers, which skips the data, finds every whole record, so a file whose
writer was killed reads up to its last whole chunk. Every size in the file is checked against the file's own length,
and a chunk against `MAX_UNPACKED_BYTES`, before memory is taken.
"""

from __future__ import annotations

import heapq
import io
import struct
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Attachment, Channel, Metadata, Schema

from sim.logs.log import LogError, LogSummary
from sim.logs.unpack import MAX_UNPACKED_BYTES, unpacked

MCAP_MAGIC = b"\x89MCAP0\r\n"
MAX_METADATA_BYTES = 64 << 20
MAX_RECORD_BYTES = MAX_UNPACKED_BYTES + (1 << 20)  # a chunk that does not shrink, and its head
MAX_HELD_BYTES = 1 << 29
MAX_CHUNK_MESSAGES = 1 << 20
MESSAGE_BYTES = 500  # that a message takes in memory beside its data
RECORD_HEAD = struct.Struct("<BQ")
CHUNK_HEAD = struct.Struct("<QQQII")
MESSAGE_HEAD = struct.Struct("<HIQQ")


@dataclass(frozen=True)
class McapMessage:
    """time_ns: log time. data: the message's bytes as its schema encodes them."""

    channel: Channel
    schema: Schema | None
    time_ns: int
    data: bytes


@dataclass(frozen=True)
class _Block:
    """A chunk, or a message outside chunks: where its body is, and the log times within."""

    offset: int
    length: int
    start_ns: int
    end_ns: int
    is_chunk: bool


class McapFile:
    """An open MCAP file.

    complete: it ends as it should. channels, schemas: by id. counts: messages by channel id, of whole chunks.
    metadata: by name. attachments: by name (the first of a name).
    """

    def __init__(self, path: Path, summary: LogSummary) -> None:
        self.path = path
        self.complete = False
        self.channels: dict[int, Channel] = {}
        self.schemas: dict[int, Schema] = {}
        self.counts: Counter[int] = Counter()
        self.metadata: dict[str, Mapping[str, str]] = {}
        self.attachments: dict[str, bytes] = {}
        self._summary = summary
        self._blocks: list[_Block] = []
        self._damaged: set[int] = set()
        self._ended_at = 0
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise LogError(f"{path} cannot be opened: {error.strerror}") from None
        try:
            self._size = self._file.seek(0, io.SEEK_END)
            self._scan()
            self._complete_channels()
            if not self.complete:
                self._summary.warn(
                    f"{path} is cut off after byte {self._ended_at} of {self._size} (its writer was stopped, or the "
                    f"copy is not whole): the {sum(self.counts.values())} messages before that are read"
                )
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def schema_name(self, channel: Channel) -> str:
        """Name of the channel's schema, "" where it has none."""
        schema = self.schemas.get(channel.schema_id)
        return "" if schema is None else schema.name

    @property
    def span_us(self) -> tuple[int, int]:
        """Log times of the first and the last message in microseconds, (0, 0) without messages."""
        if not self._blocks:
            return 0, 0
        return min(b.start_ns for b in self._blocks) // 1000, max(b.end_ns for b in self._blocks) // 1000

    def messages(self, channel_ids: Collection[int] | None = None) -> Iterator[McapMessage]:
        """Messages in order of log time (file order where equal), of those channels only if given.

        A damaged chunk is skipped and counted in the summary. Memory: the chunks whose times overlap; one that begins while
        more than MAX_HELD_BYTES of them wait for their turn is skipped and counted too.
        """
        pending: list[tuple[int, int, int, McapMessage]] = []
        held_bytes = 0
        blocks = sorted(self._blocks, key=lambda b: (b.start_ns, b.offset))
        for block in blocks:
            while pending and pending[0][0] < block.start_ns:
                message = heapq.heappop(pending)[3]
                held_bytes -= len(message.data) + MESSAGE_BYTES
                yield message
            if held_bytes > MAX_HELD_BYTES:
                reason = f"chunk left out, as more than {MAX_HELD_BYTES} bytes of others are of the same time"
                self._summary.skip(str(self.path), reason)
                continue
            for index, message in enumerate(self._read_block(block)):
                if channel_ids is None or message.channel.id in channel_ids:
                    held_bytes += len(message.data) + MESSAGE_BYTES
                    heapq.heappush(pending, (message.time_ns, block.offset, index, message))
        while pending:
            yield heapq.heappop(pending)[3]

    def _read(self, offset: int, length: int) -> bytes:
        if length > MAX_RECORD_BYTES:
            raise ValueError(f"a record of {length} bytes is larger than the {MAX_RECORD_BYTES} allowed")
        self._file.seek(offset)
        return self._file.read(length)

    def _scan(self) -> None:
        """Find every whole record, reading heads only; sets `complete`."""
        position = len(MCAP_MAGIC)
        ended = False
        while position + RECORD_HEAD.size <= self._size:
            opcode, length = RECORD_HEAD.unpack(self._read(position, RECORD_HEAD.size))
            body = position + RECORD_HEAD.size
            if opcode == 0 or length > self._size - body:
                break
            position = body + length
            try:
                self._note(opcode, body, length)
            except Exception as error:  # a damaged record breaks its parser in any way it likes
                self._summary.skip(f"{self.path} at byte {body}", f"damaged record ({error})")
            if opcode == Opcode.FOOTER:
                ended = True
                break
        self.complete = ended and self._read(position, len(MCAP_MAGIC)) == MCAP_MAGIC
        self._ended_at = position

    def _note(self, opcode: int, body: int, length: int) -> None:
        """Take note of one record of the file's top level."""
        match opcode:
            case Opcode.CHUNK:
                start_ns, end_ns, _, _, _ = CHUNK_HEAD.unpack(self._read(body, CHUNK_HEAD.size))
                block = _Block(body, length, start_ns, end_ns, True)
                if end_ns > 0 or self._read_block(block):  # one without messages has the time 0, which is no time
                    self._blocks.append(block)
            case Opcode.MESSAGE:
                channel_id, _, time_ns, _ = MESSAGE_HEAD.unpack(self._read(body, MESSAGE_HEAD.size))
                self.counts[channel_id] += 1
                self._blocks.append(_Block(body, length, time_ns, time_ns, False))
            case Opcode.MESSAGE_INDEX:
                channel_id, array_bytes = struct.unpack("<HI", self._read(body, 6))
                self.counts[channel_id] += array_bytes // 16
            case Opcode.SCHEMA | Opcode.CHANNEL:
                self._note_definition(opcode, self._read(body, length))
            case Opcode.METADATA if length <= MAX_METADATA_BYTES:
                record = Metadata.read(ReadDataStream(io.BytesIO(self._read(body, length))))
                self.metadata.setdefault(record.name, record.metadata)
            case Opcode.ATTACHMENT if length <= MAX_UNPACKED_BYTES:
                data = self._read(body, length)
                (crc,) = struct.unpack("<I", data[-4:])
                if crc and zlib.crc32(memoryview(data)[:-4]) != crc:
                    raise ValueError("checksum does not match")
                attachment = Attachment.read(ReadDataStream(io.BytesIO(data)))
                self.attachments.setdefault(attachment.name, attachment.data)

    def _note_definition(self, opcode: int, body: bytes) -> None:
        stream = ReadDataStream(io.BytesIO(body))
        if opcode == Opcode.SCHEMA:
            schema = Schema.read(stream)
            self.schemas.setdefault(schema.id, schema)
        else:
            channel = Channel.read(stream)
            self.channels.setdefault(channel.id, channel)

    def _complete_channels(self) -> None:
        """Where the end of the file does not repeat schemas and channels, or gives no counts, look into the chunks."""
        if self.complete and self.channels and self.counts:
            return
        self.counts.clear()
        for block in self._blocks:
            for message in self._read_block(block):
                self.counts[message.channel.id] += 1

    def _read_block(self, block: _Block) -> list[McapMessage]:
        try:
            body = self._read(block.offset, block.length)
            if not block.is_chunk:
                message = self._message(body)
                return [] if message is None else [message]
            return self._read_records(_decompressed(body))
        except Exception as error:  # a damaged chunk breaks decompressors and parsers in any way it likes
            if block.offset not in self._damaged:  # recordings are read twice
                self._damaged.add(block.offset)
                self._summary.skip(f"{self.path} at byte {block.offset}", f"damaged chunk ({error})")
            return []

    def _read_records(self, data: bytes) -> list[McapMessage]:
        messages = []
        position = 0
        while position < len(data):
            opcode, length = RECORD_HEAD.unpack_from(data, position)
            body = data[position + RECORD_HEAD.size : position + RECORD_HEAD.size + length]
            if len(body) != length:
                raise ValueError(f"a record of {length} bytes reaches beyond its chunk")
            position += RECORD_HEAD.size + length
            if opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                self._note_definition(opcode, body)
            elif opcode == Opcode.MESSAGE and (message := self._message(body)) is not None:
                messages.append(message)
                if len(messages) > MAX_CHUNK_MESSAGES:
                    raise ValueError(f"it holds more than {MAX_CHUNK_MESSAGES} messages")
        return messages

    def _message(self, body: bytes) -> McapMessage | None:
        channel_id, _, time_ns, _ = MESSAGE_HEAD.unpack_from(body)
        channel = self.channels.get(channel_id)
        if channel is None:
            self._summary.skip(str(self.path), f"message on channel {channel_id}, which is not defined")
            return None
        return McapMessage(channel, self.schemas.get(channel.schema_id), time_ns, body[MESSAGE_HEAD.size :])


def _decompressed(chunk: bytes) -> bytes:
    """Records inside the body of a chunk record, at most as many bytes as it announces."""
    _, _, size, crc, name_length = CHUNK_HEAD.unpack_from(chunk)
    start = CHUNK_HEAD.size + name_length
    compression = chunk[CHUNK_HEAD.size : start].decode("ascii")
    (length,) = struct.unpack_from("<Q", chunk, start)
    packed = chunk[start + 8 : start + 8 + length]
    if len(packed) != length:
        raise ValueError("its data is shorter than announced")
    data = unpacked(packed, compression, size)
    if len(data) != size:
        raise ValueError(f"it announces {size} bytes and holds {len(data)}")
    if crc and zlib.crc32(data) != crc:
        raise ValueError("checksum does not match")
    return data
