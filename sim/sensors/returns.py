"""LiDAR returns of what the rays of a sweep met: one pass after casting, beam by beam.

Knows hits, reflectivities and measurement noise; knows nothing about colours, traffic or environments.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from perception.sensors import SemanticClass
from sim.sensors.cast import COS, CURVED, CX, CY, CZ, FAST, GROUND, SHAPE, SIN, face_normal, normal_weights
from sim.sensors.ground_texture import REFLECTIVITY_OF, SEMANTIC_OF, cells_row, raster_place
from sim.sensors.parts import INSTANCE, MATERIAL, SEMANTIC
from sim.solids import Material, Shape

_SKY_CLASS = np.uint8(SemanticClass.SKY)
_WEDGE = int(Shape.WEDGE)
# Share of the light at 905 nm that comes back at normal incidence, by material; signs and lamps are retro-reflectors.
REFLECTIVITY = np.array(
    [0.35, 0.45, 0.06, 0.05, 0.55, 0.42, 0.25, 0.45, 0.25, 0.40, 0.95, 0.60, 0.60, 0.30], np.float32
)
assert len(REFLECTIVITY) == len(Material)
# Least light that the receiver sees, as a share of a white wall's at the greatest range.
_FAINTEST = np.float32(0.02)
RETURN_ROWS = 3  # of scratch: brightness, cosine of incidence, noise


@njit(**FAST)
def _ground_row(code, dz, cell_column, cell_row, classes, bright, cosine, semantic, labels):
    """Reflectivity and incidence where a beam meets the ground; 0 elsewhere."""
    rows_0, columns_0 = np.uint32(classes.shape[0]), np.uint32(classes.shape[1])
    for i in range(code.shape[0]):
        bright[i] = np.float32(0.0)
        if code[i] == GROUND:
            c, r = np.uint32(cell_column[i]), np.uint32(cell_row[i])
            kind = classes[r, c] if (c < columns_0) & (r < rows_0) else np.uint8(0)
            bright[i], cosine[i] = REFLECTIVITY_OF[kind], -dz[i]
            if labels:
                semantic[i] = SEMANTIC_OF[kind]


@njit(**FAST)
def _face_run(reflectivity, nx, ny, nz, dx, dy, dz, bright, cosine):
    """The same for a run of rays that meet one face with the normal n."""
    for i in range(dx.shape[0]):
        bright[i] = reflectivity
        cosine[i] = abs(nx * dx[i] + ny * dy[i] + nz * dz[i])


@njit(**FAST)
def _curved_run(reflectivity, box, origin, depth, dx, dy, dz, bright, cosine):
    """The same for a run of rays (unit length) that meet the curved face of one solid."""
    wx, wy, wz = normal_weights(box)
    cos_yaw, sin_yaw = box[COS], box[SIN]
    x, y, z = origin[0] - box[CX], origin[1] - box[CY], origin[2] - box[CZ]
    ox, oy = cos_yaw * x + sin_yaw * y, cos_yaw * y - sin_yaw * x
    for i in range(dx.shape[0]):
        along, across = cos_yaw * dx[i] + sin_yaw * dy[i], cos_yaw * dy[i] - sin_yaw * dx[i]
        nx, ny, nz = wx * (ox + depth[i] * along), wy * (oy + depth[i] * across), wz * (z + depth[i] * dz[i])
        bright[i] = reflectivity
        cosine[i] = abs(nx * along + ny * across + nz * dz[i]) / math.sqrt(nx * nx + ny * ny + nz * nz)


@njit(**FAST)
def _noise_row(place, first, normal, noise):
    """One number of the table for each ray, at places that a hash of the ray's number gives."""
    low = np.uint32(normal.shape[0] - 1)
    for i in range(noise.shape[0]):
        h = (np.uint32(first + i) + place) * np.uint32(0x9E3779B1)
        h = (h ^ (h >> np.uint32(15))) * np.uint32(0x85EBCA77)
        h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE3D)
        noise[i] = normal[(h >> np.uint32(16)) & low]


@njit(**FAST)
def _kept_row(depth, bright, cosine, noise, min_range, max_range, noise_m, kept):
    """Which rays come back, and their measured range (into cosine's place: intensity; into noise's place: range)."""
    one = np.float32(1.0)
    per_range = one / max_range
    for i in range(depth.shape[0]):
        t = depth[i]
        share = t * per_range
        enough = bright[i] * cosine[i] >= _FAINTEST * share * share * (one + np.float32(0.3) * noise[i])
        kept[i] = enough & (bright[i] > np.float32(0.0)) & (t >= min_range) & (t <= max_range)
        light = bright[i] * (np.float32(0.25) + np.float32(0.75) * cosine[i])
        cosine[i] = light if light < one else one
        noise[i] = t + noise_m * noise[i]


@njit(**FAST)
def _pack_row(which, count, distance, intensity, dx, dy, dz, ox, oy, oz, points):
    """Put the returns of rays which[:count] one after another into points (at least count, 4)."""
    for i in range(count):
        c = np.uint32(which[i])
        r = distance[c]
        points[i, 0], points[i, 1], points[i, 2] = ox + r * dx[c], oy + r * dy[c], oz + r * dz[c]
        points[i, 3] = intensity[c]


@njit(**FAST)
def measure_sweep(
    depth, code, dx, dy, dz, origin, boxes, attributes, ego_x, ego_y, ego_cos, ego_sin, classes, raster_origin, cell_m,
    min_range, max_range, noise_m, key, normal, scratch, cells, kept, points, semantic, instance, labels,
):  # fmt: skip
    """Turn hits into returns: points (P, 4) float32 x y z intensity in ego, packed beam after beam; their number.

    A return needs enough light: reflectivity times the cosine of incidence, against a threshold that grows with the
    square of the range and a little chance. normal: (2^n,) float32 standard normal numbers; key, a uint64 of (seed,
    episode, tick), says which of them a ray gets. noise_m: standard deviation of the range. scratch (RETURN_ROWS, columns)
    float32, cells (2, columns) int32 and kept (columns,) bool are scratch.
    """
    beams, columns = depth.shape
    place = np.uint32(key >> np.uint64(32))
    raster = raster_place(ego_x, ego_y, ego_cos, ego_sin, raster_origin, cell_m)
    bright, cosine, noise = scratch[0], scratch[1], scratch[2]
    count = 0
    for b in range(beams):
        codes, beam_dx, beam_dy, beam_dz = code[b], dx[b], dy[b], dz[b]
        if labels:
            semantic[b, :] = _SKY_CLASS
            instance[b, :] = 0
        cells_row(depth[b], beam_dx, beam_dy, origin[0], origin[1], raster, cells[0], cells[1])
        _ground_row(codes, beam_dz, cells[0], cells[1], classes, bright, cosine, semantic[b if labels else 0], labels)
        c = 0
        while c < columns:
            hit = codes[c]
            end = c + 1
            if hit >= 0:
                while end < columns and codes[end] == hit:
                    end += 1
                k = np.uint32(hit >> 2)
                box, reflectivity = boxes[k], REFLECTIVITY[attributes[k, MATERIAL]]
                if (hit & 3 == CURVED) & (np.int32(box[SHAPE]) != _WEDGE):
                    _curved_run(
                        reflectivity, box, origin, depth[b, c:end], beam_dx[c:end], beam_dy[c:end], beam_dz[c:end],
                        bright[c:end], cosine[c:end],
                    )  # fmt: skip
                else:
                    nx, ny, nz = face_normal(box, hit & 3)
                    _face_run(
                        reflectivity, nx, ny, nz, beam_dx[c:end], beam_dy[c:end], beam_dz[c:end], bright[c:end],
                        cosine[c:end],
                    )  # fmt: skip
                if labels:
                    semantic[b, c:end] = np.uint8(attributes[k, SEMANTIC])
                    instance[b, c:end] = attributes[k, INSTANCE]
            c = end
        _noise_row(place, b * columns, normal, noise)
        _kept_row(depth[b], bright, cosine, noise, min_range, max_range, noise_m, kept)
        which = cells[0]
        returns = 0
        for c in range(columns):
            which[returns] = c  # overwritten by the next ray if this one does not come back
            returns += 1 if kept[c] else 0
        _pack_row(
            which, returns, noise, cosine, beam_dx, beam_dy, beam_dz, origin[0], origin[1], origin[2], points[count:]
        )
        count += returns
    for k in range(count, points.shape[0]):
        for c in range(4):
            points[k, c] = np.float32(0.0)
    return count
