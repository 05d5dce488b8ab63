"""Vehicles that are part of the scenery. Knows solids; knows nothing about worlds, sensors or scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perception.labels import BoxField
from perception.sensors import SemanticClass
from sim.events import first_solids
from sim.solids import Boxes


class Parked(NamedTuple):
    """P parked vehicles. thing: (P,) int32, the first solid of each, as in `sim.events.Surroundings.first`.

    boxes: (P, 5) float64 x, y, yaw, half length, half width, world frame.
    """

    thing: NDArray[np.int32]
    boxes: NDArray[np.float64]


NOBODY_PARKED = Parked(np.zeros(0, np.int32), np.zeros((0, 5)))


def parked_things(scenery: Boxes) -> Parked:
    """The parked vehicles that can be hit."""
    boxes, instances = parked_vehicles(scenery)
    f, first = BoxField, first_solids(scenery)
    hit = [k for k, instance in enumerate(instances.tolist()) if instance in first]
    columns = (
        boxes[hit, f.X],
        boxes[hit, f.Y],
        boxes[hit, f.YAW],
        0.5 * boxes[hit, f.LENGTH],
        0.5 * boxes[hit, f.WIDTH],
    )
    thing = np.array([first[int(instances[k])] for k in hit], np.int32)
    return Parked(thing, np.ascontiguousarray(np.column_stack(columns), np.float64))


def parked_vehicles(scenery: Boxes) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vehicles that are part of the scenery, each the smallest box along its heading around all its parts.

    Returns: (N, len(BoxField)) float64, world frame, at rest, and their instances (N,) int64.
    """
    parts = np.flatnonzero(scenery.semantic == SemanticClass.VEHICLE)
    instances = np.unique(scenery.instance[parts])
    boxes = np.zeros((len(instances), len(BoxField)))
    signs = np.array([(x, y) for x in (-1, 1) for y in (-1, 1)])
    f = BoxField
    for row, instance in zip(boxes, instances, strict=True):
        mine = parts[scenery.instance[parts] == instance]
        half, center = scenery.half_size[mine], scenery.center[mine]
        yaw = scenery.yaw_rad[mine[np.argmax(half.prod(1))]]  # of its largest part: parts at the rear look backwards
        turns = scenery.yaw_rad[mine] - yaw
        c, s = np.cos(turns)[:, None], np.sin(turns)[:, None]
        along, across = signs[None, :, 0] * half[:, :1], signs[None, :, 1] * half[:, 1:2]
        heading = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
        middle = center[:, :2] @ heading.T
        corners = np.stack([c * along - s * across + middle[:, :1], s * along + c * across + middle[:, 1:]], -1)
        low, high = corners.reshape(-1, 2).min(0), corners.reshape(-1, 2).max(0)
        top = (center[:, 2] + half[:, 2]).max()
        row[[f.X, f.Y]] = (low + high) / 2 @ heading
        row[[f.LENGTH, f.WIDTH]] = high - low
        row[[f.Z, f.HEIGHT, f.YAW]] = top / 2, top, yaw
    return boxes, instances.astype(np.int64)
