"""LiDAR returns of what the rays of a sweep met: one pass after casting, beam by beam.

Knows hits, reflectivities, air and measurement noise; knows nothing about colours, traffic or environments.

A surface sends back `retro + diffuse * (rough + (1 - rough) * cosine)` of the light at 905 nm: a matt share that falls with
the cosine of incidence (Lambert), less so on rough surfaces, and a share that retro-reflectors send back whatever the
angle. It is seen if that is at least a tenth of (range / sensitivity)^2, with some chance. Reflectivities: a tenth for
asphalt and half for light paint are usual (Velodyne's and Ouster's data sheets rate their range by such targets);
the others are set by hand and compared with real sweeps in docs/lidar.md.
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
from numba import njit

from perception.sensors import SemanticClass
from sim.roads.driving_map import GroundClass
from sim.sensors.cast import (
    COS,
    CURVED,
    CX,
    CY,
    CZ,
    FAST,
    GROUND,
    INLINE,
    SHAPE,
    SIN,
    face_normal,
    normal_weights,
)
from sim.sensors.ground_texture import SEMANTIC_OF, ask_for_cells, cell_places, raster_place
from sim.sensors.parts import INSTANCE, MATERIAL, RED, SEMANTIC
from sim.simd import (
    WIDTH,
    all_lanes,
    any_lane,
    first_false,
    fma,
    lane,
    lane_numbers,
    least,
    mask_bits,
    shift_right,
    splat,
    sqrt,
    to_float,
    where,
)
from sim.simd_memory import gather, load, load2, store, store2, store_rows
from sim.solids import Material, Shape


class Air(IntEnum):
    """Columns of what lies between sensor and surface, float32; all 0 is clear and dry."""

    FOG = 0  # extinction in 1/m; 3.912 over the visibility in metres (Koschmieder), as in `light`
    RAIN = 1  # mm/h
    WETNESS = 2  # of the ground, 0 dry to 1 covered by water


AIR_COLUMNS = len(Air)
_FOG, _RAIN, _WETNESS = int(Air.FOG), int(Air.RAIN), int(Air.WETNESS)
_WEDGE = int(Shape.WEDGE)
_SKY_CLASS = np.uint8(SemanticClass.SKY)

# Material: diffuse, rough, retro, and how much of the diffuse share follows the colour (dark paint is dark at 905 nm too,
# less so than to the eye). Glass lets the beam through; signs and lamps hold retro-reflectors.
_SURFACES = {
    Material.PLAIN: (0.30, 0.1, 0.0, 0.9),
    Material.PAINT: (0.50, 0.05, 0.0, 0.95),
    Material.GLASS: (0.002, 0.0, 0.0, 0.0),
    Material.RUBBER: (0.04, 0.2, 0.0, 0.0),
    Material.METAL: (0.35, 0.05, 0.0, 0.0),
    Material.FACADE: (0.35, 0.1, 0.0, 0.9),
    Material.ROOF: (0.15, 0.2, 0.0, 0.0),
    Material.FOLIAGE: (0.22, 0.3, 0.0, 0.0),
    Material.BARK: (0.18, 0.3, 0.0, 0.0),
    Material.CONCRETE: (0.30, 0.1, 0.0, 0.0),
    Material.SIGN: (0.50, 0.1, 8.0, 0.0),
    Material.LAMP_OFF: (0.20, 0.0, 1.0, 0.0),
    Material.LAMP_ON: (0.20, 0.0, 1.0, 0.0),
    Material.CLOTH: (0.40, 0.3, 0.0, 0.7),
}
_GROUND = {
    GroundClass.TERRAIN: (0.25, 0.3, 0.0),
    GroundClass.ROAD: (0.10, 0.2, 0.0),
    GroundClass.LINE_WHITE: (0.35, 0.2, 0.25),
    GroundClass.LINE_YELLOW: (0.30, 0.2, 0.18),
    GroundClass.STOP_LINE: (0.35, 0.2, 0.25),
    GroundClass.CROSSWALK: (0.35, 0.2, 0.20),
    GroundClass.SIDEWALK: (0.20, 0.2, 0.0),
    GroundClass.KERB: (0.22, 0.2, 0.0),
}
SURFACE = np.array([_SURFACES[m] for m in Material], np.float32)
DRY_GROUND = np.array([_GROUND[c] for c in GroundClass], np.float32)
GROUND_CLASSES = len(DRY_GROUND)
# A film of water halves the diffuse share (Lekner and Dorf 1988), fills roughness and drowns the glass beads of markings.
_WET_GROUND = DRY_GROUND * np.array([0.5, 0.2, 0.15], np.float32)
# What is seen in half of the shots at the sensor's sensitivity.
_TENTH = np.float32(0.1)
# A droplet cloud scatters extinction / 18.8 back per steradian (O'Connor and others 2004, at 905 nm); over the 1.5 m that a
# pulse of 10 ns covers, it looks like a matt surface of reflectivity pi * 1.5 / 18.8 * extinction.
_FOG_REFLECTIVITY = np.float32(math.pi * 1.5 / 18.8)
# Extinction of rain in 1/m is this times (mm/h)^0.67 (1.076 dB/km, Carbonneau and Wisely 1998).
_RAIN_EXTINCTION = np.float32(1.076 / 4342.9)
# Assumed: share of rays that meet a large drop nearby at 1 mm/h, and how bright such a drop is at most.
_DROP_SHARE, _DROP_REFLECTIVITY = np.float32(0.0005), np.float32(0.1)
# Assumed: an echo of the air is drawn out, so it is told from noise only above this reflectivity.
_AIR_LEAST = np.float32(0.02)
# Assumed: air is seen from where sender and receiver overlap, and then this far on average (Hahner and others 2021 find
# most returns of fog within a few metres).
_AIR_FROM_M, _AIR_MEAN_M = np.float32(1.0), np.float32(2.0)
# One over the standard deviation of the sum of four bytes.
_PER_BYTE_SUM = np.float32(1.0 / math.sqrt(4 * (256**2 - 1) / 12))
RETURN_ROWS = 2  # of scratch: light that comes back, range


@njit(**FAST)
def wet_ground(wetness, ground):
    """Fill ground (GROUND_CLASSES, 2) float32: what each class sends back always, and times the cosine, at this wetness."""
    for k in range(ground.shape[0]):
        diffuse = DRY_GROUND[k, 0] + wetness * (_WET_GROUND[k, 0] - DRY_GROUND[k, 0])
        rough = DRY_GROUND[k, 1] + wetness * (_WET_GROUND[k, 1] - DRY_GROUND[k, 1])
        retro = DRY_GROUND[k, 2] + wetness * (_WET_GROUND[k, 2] - DRY_GROUND[k, 2])
        ground[k, 0], ground[k, 1] = retro + diffuse * rough, diffuse * (np.float32(1.0) - rough)


@njit(**INLINE)
def _ground_light(b, c, on_ground, t, dx, dy, dz, origin, place, classes, ground):
    """Light that comes back from the ground to those of sixteen rays that meet it, and its class; 0 and sky for the others."""
    column, row, _, _ = cell_places(t, load2(dx, b, c), load2(dy, b, c), origin[0], origin[1], place)
    rows, columns = np.int32(classes.shape[0]), np.int32(classes.shape[1])
    # Without the last row, as behind its end nothing may be read.
    inside = on_ground & (column >= 0) & (column < columns) & (row >= 0) & (row < rows - np.int32(1))
    at = where(inside, row * columns + column, np.int32(0))
    kind = where(inside, gather(classes, at), np.int32(0))
    first = lane(kind, first_false(~on_ground))
    if all_lanes((kind == first) | ~on_ground):
        meaning, light = splat(np.int32(SEMANTIC_OF[first])), fma(load2(dz, b, c), -ground[first, 1], ground[first, 0])
    else:
        meaning, place_of_kind = gather(SEMANTIC_OF, kind), kind << 1
        light = fma(load2(dz, b, c), -gather(ground, place_of_kind + np.int32(1)), gather(ground, place_of_kind))
    return where(on_ground, light, np.float32(0.0)), where(on_ground, meaning, np.int32(_SKY_CLASS))


@njit(**FAST)
def _surface_of(attribute):
    """Matt share that is the same from everywhere, matt share that goes with the cosine, and retro share, of a solid."""
    one = np.float32(1.0)
    surface = SURFACE[attribute[MATERIAL]]
    bright = np.float32(attribute[RED] + attribute[RED + 1] + attribute[RED + 2]) * np.float32(1.0 / 765.0)
    diffuse = surface[0] * (one - surface[3] * (one - bright))
    return diffuse * surface[1] + surface[2], diffuse * (one - surface[1])


@njit(**INLINE)
def _face_light(hit, b, c, box, attribute, origin, depth, dx, dy, dz):
    """Light that comes back from the face with that code to sixteen rays (of unit length) of beam b; those that do not meet it get
    anything."""
    always, facing = _surface_of(attribute)
    x, y, z = load2(dx, b, c), load2(dy, b, c), load2(dz, b, c)
    if (hit & 3 != CURVED) | (np.int32(box[SHAPE]) == _WEDGE):
        fx, fy, fz = face_normal(box, hit & 3)
        return fma(abs(fma(x, fx, fma(y, fy, fz * z))), facing, always)
    cos_yaw, sin_yaw = box[COS], box[SIN]
    from_x, from_y, oz = origin[0] - box[CX], origin[1] - box[CY], origin[2] - box[CZ]
    ox, oy = cos_yaw * from_x + sin_yaw * from_y, cos_yaw * from_y - sin_yaw * from_x
    wx, wy, wz = normal_weights(box)
    t, along, across = load2(depth, b, c), fma(x, cos_yaw, sin_yaw * y), fma(y, cos_yaw, -sin_yaw * x)
    nx, ny, nz = wx * fma(t, along, ox), wy * fma(t, across, oy), wz * fma(t, z, oz)
    cosine = abs(fma(nx, along, fma(ny, across, nz * z))) / sqrt(fma(nx, nx, fma(ny, ny, nz * nz)))
    return fma(cosine, facing, always)


@njit(**INLINE)
def _mixed(h, factor):
    """Hash of sixteen int32, wrapping."""
    h = (h ^ shift_right(h, 16)) * np.int32(0x7FEB352D)
    h = (h ^ shift_right(h, 15)) * factor
    return h ^ shift_right(h, 16)


@njit(**INLINE)
def shot_noise(place):
    """For each of sixteen places (int32) a normal number and an independent one in [0, 1), both from a hash of it.

    The normal number is the sum of the hash's four bytes, which ends at 3.5 standard deviations and needs no table.
    """
    low = np.int32(255)
    h = _mixed(place, np.int32(-2048144777))
    total = (h & low) + (shift_right(h, 8) & low) + (shift_right(h, 16) & low) + shift_right(h, 24)
    normal = (to_float(total) - np.float32(510.0)) * _PER_BYTE_SUM
    h = h * np.int32(0x2C1B3C6D)
    h = h ^ shift_right(h, 15)
    return normal, to_float(shift_right(h, 8)) * np.float32(2.0**-24)


@njit(**FAST)
def air_extinction(fog, rain):
    """Extinction of air in 1/m, of fog's in 1/m and rain in mm/h (float32)."""
    return fog + (_RAIN_EXTINCTION * rain ** np.float32(0.67) if rain > 0 else np.float32(0.0))


@njit(**FAST)
def _hashed(h, factor):
    """`_mixed` of one int32. Numba widens what it multiplies: cut back to 32 bits at once."""
    h = np.int32(np.int32(h ^ ((h >> 16) & 0xFFFF)) * np.int32(0x7FEB352D))
    h = np.int32(np.int32(h ^ ((h >> 15) & 0x1FFFF)) * factor)
    return np.int32(h ^ ((h >> 16) & 0xFFFF))


@njit(**FAST)
def _unit(h):
    """Number in [0, 1) of the upper bits of an int32."""
    return np.float32(np.int32((h >> 8) & 0xFFFFFF)) * np.float32(2.0**-24)


@njit(**FAST)
def _air_row(start, fog, rain, sensitivity, depth, light, distance):
    """Dim what lies behind fog or rain, and let the air itself answer where it is the brighter (strongest return).

    light is updated; distance of what answers is written. Echoes are compared as the sensor does, made up for range; those
    of the air fluctuate as speckle does (exponential).
    """
    one = np.float32(1.0)
    extinction = air_extinction(fog, rain)
    drops = min(_DROP_SHARE * rain, np.float32(0.2))
    for i in range(light.shape[0]):
        h = _hashed(np.int32(start + i), np.int32(0x68E31DA5))
        u = one - _unit(h)
        h = _hashed(h, np.int32(0x1B56C4E9))
        v = one - _unit(h)
        w = _unit(_hashed(h, np.int32(0x2545F491)))
        t = depth[i]
        behind = light[i] * math.exp(np.float32(-2.0) * extinction * min(t, np.float32(1000.0)))
        away = _AIR_FROM_M - _AIR_MEAN_M * math.log(u)
        bright = _FOG_REFLECTIVITY * fog + (_DROP_REFLECTIVITY if w < drops else np.float32(0.0))
        bright *= -math.log(v) * math.exp(np.float32(-2.0) * extinction * away)
        share = away / sensitivity
        of_air = (bright > _AIR_LEAST + _TENTH * share * share) & (bright > behind) & (away < t)
        light[i] = min(bright, one) if of_air else behind
        distance[i] = away if of_air else t


@njit(**INLINE)
def _put_points(points, count, kept, x, y, z, intensity):
    """Put those of sixteen returns that are kept one after another from row `count` on."""
    if all_lanes(kept):
        store_rows(points, count, (x, y, z, intensity))
        return count + WIDTH
    bits = mask_bits(kept)
    for k in range(WIDTH):
        if (bits >> k) & 1:
            points[count, 0], points[count, 1], points[count, 2] = lane(x, k), lane(y, k), lane(z, k)
            points[count, 3] = lane(intensity, k)
            count += 1
    return count


@njit(**INLINE)
def _put_labels(point_labels, point_time, count, kept, beam, kind, own, times):
    """The same for beam, class and instance (N, 3) int32, and times (N,) int32."""
    if all_lanes(kept):
        store_rows(point_labels, count, (splat(np.int32(beam)), kind, own))
        store(point_time, count, times)
        return
    bits = mask_bits(kept)
    for k in range(WIDTH):
        if (bits >> k) & 1:
            point_labels[count, 0], point_labels[count, 1], point_labels[count, 2] = beam, lane(kind, k), lane(own, k)
            point_time[count] = lane(times, k)
            count += 1


@njit(**FAST)
def measure_sweep(
    depth, code, dx, dy, dz, times, origin, boxes, attributes, ego_x, ego_y, ego_cos, ego_sin, classes, raster_origin, cell_m,
    limits, air, key, ground, scratch, points, semantic, instance, point_labels, point_time, labels,
):  # fmt: skip
    """Turn hits into returns: points (P, 4) float32 x y z intensity in ego, packed beam after beam; their number.

    limits: least and greatest range, sensitivity and noise (standard deviation) in metres, intensity of white, and whether
    intensity grows with the square root. air (AIR_COLUMNS,) float32 as in `Air`. key: a uint64 of (seed, episode, tick), of
    which all chance comes. times (beams, columns) int32.
    ground (GROUND_CLASSES, 2) and scratch (RETURN_ROWS, columns) float32 are scratch. With labels, semantic and instance
    (beams, columns) get what each ray met, point_labels (P, 3) int32 beam, class and instance of each point, and point_time
    (P,) int32 its time; a point of the air is of class SKY.
    """
    (min_range, max_range, sensitivity, noise_m, white, rooted) = limits
    beams, columns = depth.shape
    last, above = columns - WIDTH, beams - 1
    zero, one, half = np.float32(0.0), np.float32(1.0), np.float32(0.5)
    per_range = one / sensitivity
    base = np.int64(key >> np.uint64(32))
    place = raster_place(ego_x, ego_y, ego_cos, ego_sin, raster_origin, cell_m)
    light, distance = scratch[0], scratch[1]
    wet_ground(air[_WETNESS], ground)
    clear = (air[_FOG] <= 0) & (air[_RAIN] <= 0)
    count = 0
    for b in range(beams):
        for u in range(0, columns, WIDTH):
            c = min(u, last)
            if b < above:
                later = load2(code, b + 1, c) == GROUND
                if any_lane(later):
                    column, row, _, _ = cell_places(
                        load2(depth, b + 1, c), load2(dx, b + 1, c), load2(dy, b + 1, c), origin[0], origin[1], place
                    )
                    ask_for_cells(
                        classes, np.int32(0), later, column, row, np.int32(classes.shape[1]), np.int32(classes.shape[0])
                    )
            codes = load2(code, b, c)
            on_ground, todo = codes == GROUND, codes >= 0
            back, kinds, owners = splat(zero), splat(np.int32(_SKY_CLASS)), splat(np.int32(0))
            if any_lane(on_ground):
                back, kinds = _ground_light(
                    b, c, on_ground, load2(depth, b, c), dx, dy, dz, origin, place, classes, ground
                )
            while any_lane(todo):
                hit = lane(codes, first_false(~todo))
                own, k = codes == hit, hit >> 2
                todo = todo & ~own
                back = where(own, _face_light(hit, b, c, boxes[k], attributes[k], origin, depth, dx, dy, dz), back)
                if labels:
                    kinds = where(own, attributes[k, SEMANTIC], kinds)
                    owners = where(own, attributes[k, INSTANCE], owners)
            store(light, c, back)
            if labels:
                store2(semantic, b, c, kinds)
                store2(instance, b, c, owners)
        start = np.int32(base + b * columns)
        if not clear:
            _air_row(start, air[_FOG], air[_RAIN], sensitivity, depth[b], light, distance)
        for u in range(0, columns, WIDTH):
            c = min(u, last)
            t = load2(depth, b, c) if clear else load(distance, c)
            back = load(light, c)
            noise, chance = shot_noise(lane_numbers() + np.int32(start + c))
            share = t * per_range
            kept = (back > _TENTH * share * share * (half + chance)) & (back > zero)
            # What was moved back from the edge is done in part.
            kept = kept & (t >= min_range) & (t <= max_range) & (lane_numbers() >= np.int32(u - c))
            if not any_lane(kept):
                continue
            r = t + noise_m * noise
            shown = white * (sqrt(back) if rooted else back)
            x, y, z = load2(dx, b, c), load2(dy, b, c), load2(dz, b, c)
            if labels:
                kinds, owners = load2(semantic, b, c), load2(instance, b, c)
                if not clear:
                    of_air = t != load2(depth, b, c)
                    kinds, owners = where(of_air, np.int32(_SKY_CLASS), kinds), where(of_air, np.int32(0), owners)
                _put_labels(point_labels, point_time, count, kept, b, kinds, owners, load2(times, b, c))
            count = _put_points(
                points, count, kept, fma(r, x, origin[0]), fma(r, y, origin[1]), fma(r, z, origin[2]), least(shown, one)
            )
    for k in range(count, points.shape[0]):
        for c in range(4):
            points[k, c] = zero
    return count
