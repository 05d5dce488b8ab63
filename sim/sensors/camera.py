"""Boxes cast into one camera, whatever its lens.

Knows rays, lenses and solids in boxes; knows nothing about colours, traffic or environments.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sim.sensors.cast import FAST, box_of_rank, cast_solid
from sim.sensors.lens import distorted_bounds
from sim.sensors.pinhole import nearest_corner, pinhole_bounds, sphere_in_view


# Inlined by numba: as a call with all its arguments it would cost a pinhole camera more than the culling of most boxes.
@njit(**FAST, inline="always")
def in_picture(box, origin, view, lens, corners, out):
    """Whether a box may be in the picture, and which rectangle of pixels (column, end column, row, end row) surely holds it.

    view: of `pinhole_view`. lens: `LensTables`, empty for a pinhole camera. corners: (3, 8) float32 scratch; afterwards
    `nearest_corner` knows the smallest depth that the box can have.
    """
    if lens[1].shape[0] == 0:
        return sphere_in_view(box, origin, view) and pinhole_bounds(box, origin, view, corners, out)
    return distorted_bounds(box, origin, view[0], lens, corners, out)


@njit(**FAST)
def cast_camera(boxes, order, count, origin, view, lens, dx, dy, dz, depth, code, corners, bounds, drawn):
    """Cast boxes[order[:count]] (K, BOX_COLUMNS) into a camera; everything in ego, float32.

    origin (3,); view of `pinhole_view` and lens of `lens_tables`; dx, dy, dz (H, W) of `ray_directions`, which says what depth
    (H, W) means. depth and code hold what `cast_ground` put there; code becomes 4 * box +
    face (0 x, 1 y, 2 z, 3 `CURVED`). drawn (K,) int32 gets the boxes that may be in the picture; returns their number.
    Cost: boxes x pixels they may cover; with the nearest first, what is hidden costs a comparison for eight pixels.
    """
    in_view = 0
    for place in range(count):
        k = box_of_rank(boxes, order, place, count)
        box = boxes[k]
        if not in_picture(box, origin, view, lens, corners, bounds):
            continue
        nearest = nearest_corner(corners)
        if cast_solid(
            depth, code, dx, dy, dz, bounds[2], bounds[3], bounds[0], bounds[1], nearest, origin, box, np.int32(4 * k)
        ):  # fmt: skip
            drawn[in_view] = k
            in_view += 1
    return in_view
