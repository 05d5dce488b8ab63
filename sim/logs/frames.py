"""Sensor synchronisation: frames out of readings that arrive sensor by sensor.

Knows sensors' names and times; knows nothing about what a reading holds or where it came from.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from sim.logs.log import LogSummary

MAX_AGE_US = 200_000
REORDER_US = 500_000
MAX_HELD = 512

T = TypeVar("T")


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What one sensor said at one instant."""

    sensor: str
    timestamp_us: int
    value: T


@dataclass(frozen=True)
class Frame(Generic[T]):
    """readings: of every sensor; None where it was silent for longer than the greatest age allowed."""

    timestamp_us: int
    readings: Mapping[str, Reading[T] | None]


def in_time_order(
    readings: Iterable[Reading[T]], trigger: str, summary: LogSummary, reorder_us: int = REORDER_US
) -> Iterator[Reading[T]]:
    """Readings by time, those of the trigger last among equals.

    They may come up to reorder_us out of order, so those of that time are held back, or the last MAX_HELD where that is
    fewer: stamps may not move on at all. One that comes later still, or from a clock that jumped back, is left out and
    counted. The newest of all says nothing yet about how late the others are: one damaged stamp must not cost them.
    """
    held: list[tuple[int, bool, int, Reading[T]]] = []
    newest_us = second_us = released_us = -(2**63)
    for order, reading in enumerate(readings):
        if reading.timestamp_us < released_us:
            summary.skip(reading.sensor, "left out, as it came after later ones (late, or a clock that jumped back)")
            continue
        heapq.heappush(held, (reading.timestamp_us, reading.sensor == trigger, order, reading))
        newest_us, second_us = (
            max(newest_us, reading.timestamp_us),
            max(second_us, min(newest_us, reading.timestamp_us)),
        )
        while held[0][0] < second_us - reorder_us or len(held) > MAX_HELD:
            released_us = held[0][0]
            yield heapq.heappop(held)[3]
    while held:
        yield heapq.heappop(held)[3]


def synchronised(
    readings: Iterable[Reading[T]],
    sensors: Collection[str],
    trigger: str,
    summary: LogSummary,
    *,
    max_age_us: int = MAX_AGE_US,
    reorder_us: int = REORDER_US,
) -> Iterator[Frame[T]]:
    """A frame at each reading of the trigger, with the newest reading of every other sensor at or before it.

    Lazy; frames are in strict order of time, whatever the order of the readings (see `in_time_order`).

    Args:
        sensors: names of all sensors, the trigger included.
        max_age_us: an older reading counts as silence.
    """
    newest: dict[str, Reading[T]] = {}
    last_us: int | None = None
    for reading in in_time_order(readings, trigger, summary, reorder_us):
        newest[reading.sensor] = reading
        if reading.sensor != trigger:
            continue
        now_us = reading.timestamp_us
        if now_us == last_us:
            summary.skip(trigger, "left out, as it has the same time as the one before")
            continue
        last_us = now_us
        fresh = {
            name: r if (r := newest.get(name)) is not None and now_us - r.timestamp_us <= max_age_us else None
            for name in sensors
        }
        yield Frame(now_us, fresh)
