"""Sweeps taken while the car drives: the mirror needs a tenth of a second to turn, and everything moves on meanwhile.

Knows poses, boxes and the kernels of a sweep; knows nothing about routes, weather or logs. The columns are cut into sectors. For
each, the boxes are put where the car saw them at the middle of the sector, and the sector is cast and measured like a small
sweep of its own. So occlusion, rings and incidence are those of that moment; what is left is what the car and the others move in
half a sector, about a 64th of a turn (2.3 cm at 15 m/s), and the turning of others within a sweep, which is left out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.sensors.cast import COS, CX, CY, FAST, HX, HY, SIN, SKY, UNLOCKED, cast_ground
from sim.sensors.parts import INSTANCE
from sim.sensors.returns import GROUND_CLASSES, RETURN_ROWS, measure_sweep
from sim.sensors.sweep import BOUNDS, cast_sweep
from sim.simd import WIDTH
from sim.threads import MOST_THREADS

SECTORS = 32  # at most; a sector is a whole number of vectors wide
_EGO = 0


@njit(**FAST)
def ego_before(time_s, speed_mps, yaw_rate_radps):
    """Pose (x, y, cosine, sine) that the ego had time_s (not positive) before, in its frame of now.

    Constant speed and yaw rate of the rear axle, without slip: an arc.
    """
    half = 0.5 * yaw_rate_radps * time_s
    chord = speed_mps * time_s * (math.sin(half) / half if abs(half) > 1e-9 else 1.0)
    return chord * math.cos(half), chord * math.sin(half), math.cos(2.0 * half), math.sin(2.0 * half)


@njit(**FAST)
def boxes_before(boxes, chosen, count, actors, attributes, time_s, pose, velocities, moved):
    """Fill moved with boxes[chosen[:count]] where they were time_s before, seen from pose of `ego_before`.

    The first `actors` boxes belong to the agent that their attribute INSTANCE names, and moved at its velocity, velocities (A, 2)
    in ego axes of now: a box may look another way than its agent.
    """
    x_0, y_0, c, s = np.float32(pose[0]), np.float32(pose[1]), np.float32(pose[2]), np.float32(pose[3])
    for place in range(count):
        k = chosen[place]
        for j in range(boxes.shape[1]):
            moved[k, j] = boxes[k, j]
        x, y = boxes[k, CX] - x_0, boxes[k, CY] - y_0
        if k < actors:
            agent = attributes[k, INSTANCE]
            x, y = x + np.float32(velocities[agent, 0] * time_s), y + np.float32(velocities[agent, 1] * time_s)
        moved[k, CX], moved[k, CY] = c * x + s * y, c * y - s * x
        moved[k, COS] = c * boxes[k, COS] + s * boxes[k, SIN]
        moved[k, SIN] = c * boxes[k, SIN] - s * boxes[k, COS]


@njit(**FAST)
def boxes_by_sector(
    boxes, order, count, actors, attributes, origin, lidar_from_ego, round_view, first, sector_rad, margin_rad, speeds,
    yaw_rate_radps, sweep_s, chosen, chosen_count,
):  # fmt: skip
    """Fill chosen (S, K) and chosen_count (S,) with the boxes that each sector may meet at any time of the sweep, in order.

    round_view: whether the sensor is upright and sees all around; otherwise every sector gets every box. A box's horizontal
    circle is widened by the angle under which all that can move in a sweep is seen, and by margin_rad for the fan of rays.
    """
    sectors = chosen_count.shape[0]
    chosen_count[:] = 0
    turned = abs(yaw_rate_radps) * sweep_s
    drift = abs(speeds[_EGO]) * sweep_s + turned * math.sqrt(origin[0] * origin[0] + origin[1] * origin[1])
    for place in range(count):
        k = order[place]
        x, y = boxes[k, CX] - origin[0], boxes[k, CY] - origin[1]
        ahead = lidar_from_ego[0, 0] * x + lidar_from_ego[0, 1] * y
        aside = lidar_from_ego[1, 0] * x + lidar_from_ego[1, 1] * y
        away = math.sqrt(ahead * ahead + aside * aside)
        radius = math.sqrt(boxes[k, HX] * boxes[k, HX] + boxes[k, HY] * boxes[k, HY])
        moves = drift + (abs(speeds[attributes[k, INSTANCE]]) * sweep_s if k < actors else 0.0)
        low, high = 0, sectors - 1
        if round_view and away > 1.01 * (radius + moves) + 0.01:
            half = math.asin(radius / (away - moves)) + math.asin(moves / away) + turned + margin_rad
            middle = math.atan2(aside, ahead) - first
            if half < 3.0:
                low, high = math.floor((middle - half) / sector_rad), math.floor((middle + half) / sector_rad)
        per_turn = 2.0 * math.pi / sector_rad  # no whole number where the last sector is cut off
        for n in range(sectors):
            for turn in range(-2, 3):  # sweeps begin anywhere within a turn either way
                shift = turn * per_turn
                if (n >= low + shift - 1.0) & (n <= high + shift + 1.0):
                    chosen[n, chosen_count[n]] = k
                    chosen_count[n] += 1
                    break


@njit(**FAST)
def _keep_sector(first, columns, from_rows, to_rows):
    """Copy a sector's rows into columns first ... of the whole sweep's."""
    for b in range(to_rows.shape[0]):
        for c in range(columns):
            to_rows[b, first + c] = from_rows[b, c]


@njit(**UNLOCKED)
def sweep_in_motion(
    k, which, pose, speed_mps, velocity_mps, yaw_rate_radps, keys, boxes, attributes, counts, order, view, sectors, scratch, ground,
    air, depth, code, points, point_count, semantic, instance, point_labels, point_time, labels,
):  # fmt: skip
    """Sweeps of environments `which` as `SensorSuite` describes them, points in the order of columns' sectors.

    A point is given in the ego's frame of the moment it was measured, uncorrected as a sensor reports it. k: number of the thread,
    whose scratch is used. speed_mps (E, A), velocity_mps (E, A, 2) in ego axes, yaw_rate_radps (E,) float64, the ego's.
    sectors and scratch are of `MovingSweep`.
    """
    (origin, lidar_from_ego, upright, slopes, first, step, spread, _, _, _, _, limits) = view
    (all_dx, all_dy, all_dz, all_times, sector_time, columns) = sectors
    (
        bounds,
        rows,
        wet,
        moved,
        part_depth,
        part_code,
        part_semantic,
        part_instance,
        chosen,
        chosen_count,
    ) = scratch
    (classes, raster_origin, cell_m) = ground
    beams, width = all_dx.shape[1], all_dx.shape[2]
    longest = sector_time[0]
    for time_s in sector_time:
        longest = min(longest, time_s)
    for e in which:
        total = 0
        boxes_by_sector(
            boxes[e], order[e], counts[e, 0], counts[e, 1], attributes[e], origin, lidar_from_ego,
            upright and columns * step > 6.28, np.float64(first), np.float64(width * step), np.float64(spread + step),
            speed_mps[e], yaw_rate_radps[e], -longest, chosen[k], chosen_count[k],
        )  # fmt: skip
        for n in range(sector_time.shape[0]):
            dx, dy, dz, times = all_dx[n], all_dy[n], all_dz[n], all_times[n]
            begin = n * width
            inside = min(width, columns - begin)
            before = ego_before(sector_time[n], speed_mps[e, _EGO], yaw_rate_radps[e])
            boxes_before(
                boxes[e], chosen[k, n], chosen_count[k, n], counts[e, 1], attributes[e], sector_time[n], before,
                velocity_mps[e], moved[k],
            )  # fmt: skip
            cast_ground(origin, dz, part_depth[k], part_code[k])
            cast_sweep(
                moved[k], chosen[k, n], chosen_count[k, n], origin, lidar_from_ego, upright, limits[1], slopes,
                np.float32(first + begin * step), step, spread, dx, dy, dz, part_depth[k], part_code[k], bounds[k],
            )  # fmt: skip
            for b in range(beams):
                for c in range(inside, width):  # beyond the last column, where not even the air is to answer
                    part_depth[k, b, c], part_code[k, b, c] = np.float32(0.0), SKY
            ego_x = pose[e, 0] + pose[e, 2] * before[0] - pose[e, 3] * before[1]
            ego_y = pose[e, 1] + pose[e, 3] * before[0] + pose[e, 2] * before[1]
            ego_cos, ego_sin = (
                pose[e, 2] * before[2] - pose[e, 3] * before[3],
                pose[e, 3] * before[2] + pose[e, 2] * before[3],
            )
            key = keys[e] + (np.uint64(begin * beams) << np.uint64(32))
            most = total + beams * width
            labelled = slice(total, most) if labels else slice(0, 1)
            total += measure_sweep(
                part_depth[k], part_code[k], dx, dy, dz, times, origin, moved[k], attributes[e], ego_x, ego_y, ego_cos,
                ego_sin, classes, raster_origin, cell_m, limits, air[e], key, wet[k], rows[k],
                points[e, total:most], part_semantic[k], part_instance[k], point_labels[e, labelled],
                point_time[e, labelled], labels,
            )  # fmt: skip
            _keep_sector(begin, inside, part_depth[k], depth[e])
            _keep_sector(begin, inside, part_code[k], code[e])
            if labels:
                _keep_sector(begin, inside, part_semantic[k], semantic[e])
                _keep_sector(begin, inside, part_instance[k], instance[e])
        points[e, total:] = 0.0
        point_count[e] = total


class MovingSweep:
    """Sectors of one LiDAR, and scratch for each thread.

    sectors: directions dx, dy, dz and times (S, beams, width), time of each sector's middle (S,) in seconds before the end of the
    sweep, number of columns. Columns beyond the last one are filled up with rays that are thrown away.
    """

    def __init__(
        self, directions: NDArray[np.float32], times_us: NDArray[np.int32], column_times_s: NDArray[np.float64],
        max_boxes: int, box_columns: int, labels: bool,
    ) -> None:  # fmt: skip
        _, beams, columns = directions.shape
        width = -(-columns // (SECTORS * WIDTH)) * WIDTH
        count = -(-columns // width)
        padding = [(0, 0), (0, count * width - columns)]

        def cut(rows: NDArray[Any]) -> NDArray[Any]:
            padded = np.pad(rows, padding, mode="edge")
            return np.ascontiguousarray(padded.reshape(beams, count, width).swapaxes(0, 1))

        middle = np.array([column_times_s[n * width : (n + 1) * width].mean() for n in range(count)])
        self.sectors = (*(cut(rows) for rows in directions), cut(times_us), middle, columns)
        labelled = (beams, width) if labels else (1, 1)
        threads = MOST_THREADS
        self.scratch: tuple[Any, ...] = (
            np.zeros((threads, BOUNDS, WIDTH), np.float32),
            np.zeros((threads, RETURN_ROWS, width), np.float32),
            np.zeros((threads, GROUND_CLASSES, 2), np.float32),
            np.zeros((threads, max_boxes, box_columns), np.float32),
            np.zeros((threads, beams, width), np.float32),
            np.zeros((threads, beams, width), np.int32),
            np.zeros((threads, *labelled), np.uint8),
            np.zeros((threads, *labelled), np.int32),
            np.zeros((threads, count, max_boxes), np.int32),
            np.zeros((threads, count), np.int64),
        )
