"""Boxes cast into one camera, whatever its lens.

Knows rays, lenses and solids in boxes; knows nothing about colours, traffic or environments.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sim.sensors.cast import FAST, INLINE, boxes_of_ranks, cast_solid
from sim.sensors.lens import distorted_bounds
from sim.sensors.pinhole import nearest_corner, pinhole_bounds, sphere_in_view, spheres_in_view
from sim.simd import WIDTH, fma, lowest_bit, mask_bits, sqrt


@njit(**INLINE)
def in_cone(x, y, z, radius, origin, view, lens):
    """Which of sixteen spheres in ego may be in the picture; under a lens that is not a pinhole, all."""
    if lens[1].shape[0] != 0:
        return radius == radius
    return spheres_in_view(x - origin[0], y - origin[1], z - origin[2], radius, view)


@njit(**FAST, inline="always")
def rectangle_of(box, origin, view, lens, corners, out):
    """`in_picture` of a box whose sphere is known to be in view."""
    if lens[1].shape[0] == 0:
        return pinhole_bounds(box, origin, view, corners, out)
    return distorted_bounds(box, origin, view[0], lens, corners, out)


# Inlined by numba: as a call with all its arguments it would cost a pinhole camera more than the culling of most boxes.
@njit(**FAST, inline="always")
def in_picture(box, origin, view, lens, corners, out):
    """Whether a box may be in the picture, and which rectangle of pixels (column, end column, row, end row) surely holds it.

    view: of `pinhole_view`. lens: `LensTables`, empty for a pinhole camera. corners: (3, WIDTH) float32 scratch; afterwards
    `nearest_corner` knows the smallest depth that the box can have.
    """
    if lens[1].shape[0] == 0 and not sphere_in_view(box, origin, view):
        return False
    return rectangle_of(box, origin, view, lens, corners, out)


@njit(**FAST)
def cast_camera(boxes, order, count, origin, view, lens, dx, dy, dz, depth, code, corners, bounds, drawn):
    """Cast boxes[order[:count]] (K, BOX_COLUMNS) into a camera; everything in ego, float32.

    origin (3,); view of `pinhole_view` and lens of `lens_tables`; dx, dy, dz (H, W) of `ray_directions`, which says what depth
    (H, W) means. depth and code hold what `cast_ground` put there; code becomes 4 * box +
    face (0 x, 1 y, 2 z, 3 `CURVED`). drawn (K,) int32 gets the boxes that were seen when their turn came; returns their number.
    Cost: boxes x pixels they may cover; with the nearest first, what is hidden costs a comparison for sixteen pixels.
    """
    seen = 0
    for rank in range(0, count, WIDTH):
        (x, y, z, hx, hy, hz, _, _), there = boxes_of_ranks(boxes, order, rank, count)
        bits = mask_bits(there & in_cone(x, y, z, sqrt(fma(hx, hx, fma(hy, hy, hz * hz))), origin, view, lens))
        while bits != 0:
            k = order[rank + lowest_bit(bits)]
            bits &= bits - 1
            box = boxes[k]
            if not rectangle_of(box, origin, view, lens, corners, bounds):
                continue
            nearest = nearest_corner(corners)
            if cast_solid(
                depth, code, dx, dy, dz, bounds[2], bounds[3], bounds[0], bounds[1], nearest, origin, box, np.int32(4 * k)
            ):  # fmt: skip
                drawn[seen] = k
                seen += 1
    return seen
