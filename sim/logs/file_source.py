"""Recordings of which every reading is a file of its own, as data sets are published.

Knows files, their sizes and pictures; knows nothing about what else is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.logs.log import LogSummary, TopicInfo
from sim.logs.pictures import PictureError, decode_picture
from sim.logs.recorded import MessageError, RawMessage, Recorded, RecordedPicture, Role

MAX_FILE_BYTES = 1 << 26


class _Files(NamedTuple):
    """What a topic's messages are, by time, and how the bytes of one are read."""

    role: Role
    files: Sequence[tuple[int, Path]]
    decode: Callable[[RawMessage], Recorded]
    most_bytes: int


class FileSource:
    """A `MessageSource` that is told its topics with `add_files` and `add_known`."""

    def __init__(self, kind: str, summary: LogSummary) -> None:
        self.kind = kind
        self.topics: dict[str, TopicInfo] = {}
        self._summary = summary
        self._files: dict[str, _Files] = {}
        self._known: dict[str, tuple[Role, Sequence[tuple[int, Recorded]]]] = {}

    def add_files(
        self,
        topic: str,
        role: Role,
        message_type: str,
        files: Sequence[tuple[int, Path]],
        decode: Callable[[RawMessage], Recorded],
        most_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        """files: time in microseconds and path of each message. decode: raises MessageError. most_bytes: of one file."""
        self._files[topic] = _Files(role, files, decode, most_bytes)
        self.topics[topic] = TopicInfo(message_type, len(files))

    def add_known(self, topic: str, role: Role, message_type: str, known: Sequence[tuple[int, Recorded]]) -> None:
        """known: time in microseconds and content of each message; the same at every pass."""
        self._known[topic] = role, known
        self.topics[topic] = TopicInfo(message_type, len(known))

    @property
    def span_us(self) -> tuple[int, int]:
        """Of the first and the last message; (0, 0) without any."""
        files = [time_us for topic in self._files.values() for time_us, _ in topic.files]
        times = files + [time_us for _, known in self._known.values() for time_us, _ in known]
        return min(times, default=0), max(times, default=0)

    def role(self, topic: str) -> Role | None:
        return self._known[topic][0] if topic in self._known else self._files[topic].role

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        """What is known comes first: it is looked through before any file is read."""
        for topic in sorted(set(topics) & set(self._known)):
            for k, (time_us, _) in enumerate(self._known[topic][1]):
                yield RawMessage(topic, self.topics[topic].type, time_us, str(k).encode())
        chosen = [(t, name, file) for name in set(topics) & set(self._files) for t, file in self._files[name].files]
        for time_us, topic, path in sorted(chosen):
            most = self._files[topic].most_bytes
            try:
                if path.stat().st_size > most:
                    self._summary.skip(topic, f"file of more than {most >> 10} kB")
                    continue
                data = path.read_bytes()
            except OSError as error:
                self._summary.skip(topic, f"file that cannot be read ({error.strerror})")
                continue
            yield RawMessage(topic, self.topics[topic].type, time_us, data)

    def decode(self, message: RawMessage) -> Recorded:
        if message.topic in self._known:
            return self._known[message.topic][1][int(message.data)][1]
        return self._files[message.topic].decode(message)

    def close(self) -> None:
        """Nothing is open between messages."""


def picture_of_file(message: RawMessage) -> RecordedPicture:
    """A PNG or JPEG picture; its frame is the first word of the topic, the camera's name."""

    def pixels(width_px: int, height_px: int) -> NDArray[np.uint8]:
        try:
            return decode_picture(message.data, width_px, height_px)
        except PictureError as error:
            raise MessageError(str(error)) from None

    return RecordedPicture(message.topic.split("/")[1], message.time_us, pixels)
