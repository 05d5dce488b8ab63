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
from sim.sensors.cast import COS, CURVED, CX, CY, CZ, FAST, GROUND, SHAPE, SIN, face_normal, normal_weights
from sim.sensors.ground_texture import SEMANTIC_OF, cells_row, raster_place
from sim.sensors.parts import INSTANCE, MATERIAL, RED, SEMANTIC
from sim.solids import Material, Shape


class Air(IntEnum):
    """Columns of what lies between sensor and surface, float32; all 0 is clear and dry."""

    FOG = 0  # extinction in 1/m; 3 over the visibility in metres (Koschmieder)
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
RETURN_ROWS = 4  # of scratch: light that comes back, noise, chance, range


@njit(**FAST)
def wet_ground(wetness, ground):
    """Fill ground (GROUND_CLASSES, 2) float32: what each class sends back always, and times the cosine, at this wetness."""
    for k in range(ground.shape[0]):
        diffuse = DRY_GROUND[k, 0] + wetness * (_WET_GROUND[k, 0] - DRY_GROUND[k, 0])
        rough = DRY_GROUND[k, 1] + wetness * (_WET_GROUND[k, 1] - DRY_GROUND[k, 1])
        retro = DRY_GROUND[k, 2] + wetness * (_WET_GROUND[k, 2] - DRY_GROUND[k, 2])
        ground[k, 0], ground[k, 1] = retro + diffuse * rough, diffuse * (np.float32(1.0) - rough)


@njit(**FAST)
def _ground_row(code, dz, cell_column, cell_row, classes, ground, light, semantic, labels):
    """Light that comes back where a beam meets the ground; 0 elsewhere."""
    rows_0, columns_0 = np.uint32(classes.shape[0]), np.uint32(classes.shape[1])
    for i in range(code.shape[0]):
        light[i] = np.float32(0.0)
        if code[i] == GROUND:
            c, r = np.uint32(cell_column[i]), np.uint32(cell_row[i])
            kind = np.uint32(classes[r, c]) if (c < columns_0) & (r < rows_0) else np.uint32(0)
            light[i] = ground[kind, 0] - ground[kind, 1] * dz[i]
            if labels:
                semantic[i] = SEMANTIC_OF[kind]


@njit(**FAST)
def _surface_of(attribute):
    """Matt share that is the same from everywhere, matt share that goes with the cosine, and retro share, of a solid."""
    one = np.float32(1.0)
    surface = SURFACE[attribute[MATERIAL]]
    bright = np.float32(attribute[RED] + attribute[RED + 1] + attribute[RED + 2]) * np.float32(1.0 / 765.0)
    diffuse = surface[0] * (one - surface[3] * (one - bright))
    return diffuse * surface[1] + surface[2], diffuse * (one - surface[1])


@njit(**FAST)
def _face_run(always, facing, nx, ny, nz, dx, dy, dz, light):
    """Light that comes back from a run of rays that meet one face with the normal n."""
    for i in range(dx.shape[0]):
        light[i] = always + facing * abs(nx * dx[i] + ny * dy[i] + nz * dz[i])


@njit(**FAST)
def _curved_run(always, facing, box, origin, depth, dx, dy, dz, light):
    """The same for a run of rays (unit length) that meet the curved face of one solid."""
    wx, wy, wz = normal_weights(box)
    cos_yaw, sin_yaw = box[COS], box[SIN]
    x, y, z = origin[0] - box[CX], origin[1] - box[CY], origin[2] - box[CZ]
    ox, oy = cos_yaw * x + sin_yaw * y, cos_yaw * y - sin_yaw * x
    for i in range(dx.shape[0]):
        along, across = cos_yaw * dx[i] + sin_yaw * dy[i], cos_yaw * dy[i] - sin_yaw * dx[i]
        nx, ny, nz = wx * (ox + depth[i] * along), wy * (oy + depth[i] * across), wz * (z + depth[i] * dz[i])
        cosine = abs(nx * along + ny * across + nz * dz[i]) / math.sqrt(nx * nx + ny * ny + nz * nz)
        light[i] = always + facing * cosine


@njit(**FAST)
def _mixed(h, factor):
    """Hash of an int32, wrapping. Numba widens what it multiplies: cut back to 32 bits at once, so that rows vectorise."""
    h = np.int32(np.int32(h ^ ((h >> 16) & 0xFFFF)) * np.int32(0x7FEB352D))
    h = np.int32(np.int32(h ^ ((h >> 15) & 0x1FFFF)) * factor)
    return np.int32(h ^ ((h >> 16) & 0xFFFF))


@njit(**FAST)
def _unit(h):
    """Number in [0, 1) of the upper bits of an int32."""
    return np.float32(np.int32((h >> 8) & 0xFFFFFF)) * np.float32(2.0**-24)


@njit(**FAST)
def _noise_row(start, noise, chance):
    """For ray after ray a normal number and an independent one in [0, 1), both from a hash of start + i (int32).

    The normal number is the sum of the hash's four bytes, which ends at 3.5 standard deviations and needs no table.
    """
    for i in range(noise.shape[0]):
        h = _mixed(np.int32(start + i), np.int32(-2048144777))
        total = np.int32((h & 255) + ((h >> 8) & 255) + ((h >> 16) & 255) + ((h >> 24) & 255))
        noise[i] = (np.float32(total) - np.float32(510.0)) * _PER_BYTE_SUM
        h = np.int32(h * np.int32(0x2C1B3C6D))
        chance[i] = _unit(np.int32(h ^ ((h >> 15) & 0x1FFFF)))


@njit(**FAST)
def air_extinction(fog, rain):
    """Extinction of air in 1/m, of fog's in 1/m and rain in mm/h (float32)."""
    return fog + (_RAIN_EXTINCTION * rain ** np.float32(0.67) if rain > 0 else np.float32(0.0))


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
        h = _mixed(np.int32(start + i), np.int32(0x68E31DA5))
        u = one - _unit(h)
        h = _mixed(h, np.int32(0x1B56C4E9))
        v = one - _unit(h)
        w = _unit(_mixed(h, np.int32(0x2545F491)))
        t = depth[i]
        behind = light[i] * math.exp(np.float32(-2.0) * extinction * min(t, np.float32(1000.0)))
        away = _AIR_FROM_M - _AIR_MEAN_M * math.log(u)
        bright = _FOG_REFLECTIVITY * fog + (_DROP_REFLECTIVITY if w < drops else np.float32(0.0))
        bright *= -math.log(v) * math.exp(np.float32(-2.0) * extinction * away)
        share = away / sensitivity
        of_air = (bright > _AIR_LEAST + _TENTH * share * share) & (bright > behind) & (away < t)
        light[i] = min(bright, one) if of_air else behind
        distance[i] = away if of_air else t


@njit(**FAST)
def _kept_row(distance, light, noise, chance, min_range, max_range, sensitivity, noise_m, white, rooted, kept):
    """Which rays come back; their measured range (into noise's place) and intensity (into chance's place)."""
    one, half = np.float32(1.0), np.float32(0.5)
    per_range = one / sensitivity
    for i in range(distance.shape[0]):
        t, back = distance[i], light[i]
        share = t * per_range
        enough = back > _TENTH * share * share * (half + chance[i])
        kept[i] = enough & (back > np.float32(0.0)) & (t >= min_range) & (t <= max_range)
        noise[i] = t + noise_m * noise[i]
        shown = white * (math.sqrt(back) if rooted else back)
        chance[i] = shown if shown < one else one


@njit(**FAST)
def _pack_row(which, count, distance, intensity, dx, dy, dz, ox, oy, oz, points):
    """Put the returns of rays which[:count] one after another into points (at least count, 4)."""
    for i in range(count):
        c = np.uint32(which[i])
        r = distance[c]
        points[i, 0], points[i, 1], points[i, 2] = ox + r * dx[c], oy + r * dy[c], oz + r * dz[c]
        points[i, 3] = intensity[c]


@njit(**FAST)
def _label_row(which, count, beam, times, semantic, instance, distance, depth, point_labels, point_time):
    """Beam, class and instance of the returns of rays which[:count] (count, 3) int32, and their times (count,) int32."""
    for i in range(count):
        c = np.uint32(which[i])
        air = distance[c] != depth[c]
        point_labels[i, 0] = beam
        point_labels[i, 1] = _SKY_CLASS if air else semantic[c]
        point_labels[i, 2] = 0 if air else instance[c]
        point_time[i] = times[c]


@njit(**FAST)
def measure_sweep(
    depth, code, dx, dy, dz, times, origin, boxes, attributes, ego_x, ego_y, ego_cos, ego_sin, classes, raster_origin, cell_m,
    limits, air, key, ground, scratch, cells, kept, points, semantic, instance, point_labels, point_time, labels,
):  # fmt: skip
    """Turn hits into returns: points (P, 4) float32 x y z intensity in ego, packed beam after beam; their number.

    limits: least and greatest range, sensitivity and noise (standard deviation) in metres, intensity of white, and whether
    intensity grows with the square root. air (AIR_COLUMNS,) float32 as in `Air`. key: a uint64 of (seed, episode, tick), of
    which all chance comes. times (beams, columns) int32.
    ground (GROUND_CLASSES, 2), scratch (RETURN_ROWS, columns) float32, cells (2, columns) int32 and kept (columns,) bool are
    scratch. With labels, semantic and instance (beams, columns) get what each ray met, point_labels (P, 3) int32 beam,
    class and instance of each point, and point_time (P,) int32 its time; a point of the air is of class SKY.
    """
    (min_range, max_range, sensitivity, noise_m, white, rooted) = limits
    beams, columns = depth.shape
    place = np.int64(key >> np.uint64(32))
    raster = raster_place(ego_x, ego_y, ego_cos, ego_sin, raster_origin, cell_m)
    light, noise, chance = scratch[0], scratch[1], scratch[2]
    wet_ground(air[_WETNESS], ground)
    clear = (air[_FOG] <= 0) & (air[_RAIN] <= 0)
    count = 0
    for b in range(beams):
        codes, beam_dx, beam_dy, beam_dz = code[b], dx[b], dy[b], dz[b]
        if labels:
            semantic[b, :] = _SKY_CLASS
            instance[b, :] = 0
        cells_row(depth[b], beam_dx, beam_dy, origin[0], origin[1], raster, cells[0], cells[1])
        _ground_row(codes, beam_dz, cells[0], cells[1], classes, ground, light, semantic[b if labels else 0], labels)
        c = 0
        while c < columns:
            hit = codes[c]
            end = c + 1
            if hit >= 0:
                while end < columns and codes[end] == hit:
                    end += 1
                k = np.uint32(hit >> 2)
                box = boxes[k]
                always, facing = _surface_of(attributes[k])
                if (hit & 3 == CURVED) & (np.int32(box[SHAPE]) != _WEDGE):
                    _curved_run(
                        always, facing, box, origin, depth[b, c:end], beam_dx[c:end], beam_dy[c:end], beam_dz[c:end],
                        light[c:end],
                    )  # fmt: skip
                else:
                    nx, ny, nz = face_normal(box, hit & 3)
                    _face_run(always, facing, nx, ny, nz, beam_dx[c:end], beam_dy[c:end], beam_dz[c:end], light[c:end])
                if labels:
                    semantic[b, c:end] = np.uint8(attributes[k, SEMANTIC])
                    instance[b, c:end] = attributes[k, INSTANCE]
            c = end
        start = np.int32(place + b * columns)
        _noise_row(start, noise, chance)
        distance = depth[b]
        if not clear:
            distance = scratch[3]
            _air_row(start, air[_FOG], air[_RAIN], sensitivity, depth[b], light, distance)
        _kept_row(distance, light, noise, chance, min_range, max_range, sensitivity, noise_m, white, rooted, kept)
        which = cells[0]
        returns = 0
        for c in range(columns):
            which[returns] = c  # overwritten by the next ray if this one does not come back
            returns += 1 if kept[c] else 0
        _pack_row(
            which, returns, noise, chance, beam_dx, beam_dy, beam_dz, origin[0], origin[1], origin[2], points[count:]
        )
        if labels:
            _label_row(
                which, returns, b, times[b], semantic[b], instance[b], distance, depth[b], point_labels[count:],
                point_time[count:],
            )  # fmt: skip
        count += returns
    for k in range(count, points.shape[0]):
        for c in range(4):
            points[k, c] = np.float32(0.0)
    return count
