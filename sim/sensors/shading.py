"""Colours and reflectivities of what a ray met: one pass over the picture after casting.

Knows hits, materials, the ground's texture and the light; knows nothing about traffic or environments.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from perception.sensors import SemanticClass
from sim.sensors.cast import BOX_COLUMNS, COS, CX, CY, CZ, FAST, HX, HY, HZ, SIN, _pinhole_bounds
from sim.sensors.ground_texture import GRAIN_OF, PALETTE, REFLECTIVITY_OF, SEMANTIC_OF
from sim.sensors.parts import INSTANCE, MATERIAL, RED, SEMANTIC
from sim.solids import Material

_GLASS, _FACADE, _FOLIAGE = int(Material.GLASS), int(Material.FACADE), int(Material.FOLIAGE)
_LAMP_ON, _SIGN, _ROOF = int(Material.LAMP_ON), int(Material.SIGN), int(Material.ROOF)
_SKY, _ROAD = int(SemanticClass.SKY), int(SemanticClass.ROAD)
SHADOW = np.float32(0.52)
SHADOW_RANGE_M = np.float32(70.0)
GROUND = np.int32(-1)
SKY = np.int32(-2)

# Share of the light at 905 nm that comes back at normal incidence, by material; signs and lamps are retro-reflectors.
REFLECTIVITY = np.array(
    [0.35, 0.45, 0.06, 0.05, 0.55, 0.42, 0.25, 0.45, 0.25, 0.40, 0.95, 0.60, 0.60, 0.30], np.float32
)
assert len(REFLECTIVITY) == len(Material)


@njit(**FAST)
def grain(x, y):
    """Noise in [-0.5, 0.5) of two integers: a 32-bit hash (the finalizer of MurmurHash3, Appleby 2011)."""
    h = np.uint32(np.uint32(x) * np.uint32(0x9E3779B1)) ^ np.uint32(np.uint32(y) * np.uint32(0x85EBCA77))
    h = np.uint32(np.uint32(h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    h = np.uint32(np.uint32(h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    h = np.uint32(h ^ (h >> np.uint32(16)))
    return np.float32(h >> np.uint32(8)) * np.float32(1.0 / 16777216.0) - np.float32(0.5)


@njit(**FAST)
def _shadow_row(shade, code, depth, dx, dy, ax, ay, cos_yaw, sin_yaw, x0, x1, y0, y1, z0, z1, rx, ry, rz):
    """Darken the ground pixels of one row from which the sun is hidden by a box.

    a is the sensor's place and x0 to z1 are the box's sides, in its own frame; r is one over the direction to the sun.
    """
    for i in range(shade.shape[0]):
        px = ax + depth[i] * (cos_yaw * dx[i] + sin_yaw * dy[i])
        py = ay + depth[i] * (cos_yaw * dy[i] - sin_yaw * dx[i])
        tx0, tx1 = (x0 - px) * rx, (x1 - px) * rx
        ty0, ty1 = (y0 - py) * ry, (y1 - py) * ry
        tz0, tz1 = z0 * rz, z1 * rz
        near = tx0 if tx0 < tx1 else tx1
        near_y = ty0 if ty0 < ty1 else ty1
        near = near if near > near_y else near_y
        near = near if near > tz0 else tz0
        far = tx0 if tx0 > tx1 else tx1
        far_y = ty0 if ty0 > ty1 else ty1
        far = far if far < far_y else far_y
        far = far if far < tz1 else tz1
        hidden = (near < far) & (code[i] == GROUND)
        shade[i] = SHADOW if hidden else shade[i]


@njit(**FAST)
def cast_shadows(
    boxes, count, origin, camera_from_ego, intrinsics, sun, dx, dy, depth, code, shade, corners, bounds, flat
):  # fmt: skip
    """Fill shade (H, W) float32: SHADOW where the ground is hidden from the sun (unit vector in ego), else 1."""
    rows, columns = shade.shape
    shade[:] = np.float32(1.0)
    for k in range(count):
        box = boxes[k]
        distance = math.sqrt(box[CX] * box[CX] + box[CY] * box[CY])
        size = max(box[HX], box[HY], box[HZ])
        if distance - size > SHADOW_RANGE_M or size < np.float32(0.006) * distance or size < np.float32(0.2):
            continue
        sx, sy = box[COS] * sun[0] + box[SIN] * sun[1], box[COS] * sun[1] - box[SIN] * sun[0]
        top = box[CZ] + box[HZ]
        off_x, off_y = -sx / sun[2] * top, -sy / sun[2] * top
        mid_x, mid_y = np.float32(0.5) * off_x, np.float32(0.5) * off_y
        flat[CX] = box[CX] + box[COS] * mid_x - box[SIN] * mid_y
        flat[CY] = box[CY] + box[SIN] * mid_x + box[COS] * mid_y
        flat[CZ], flat[HZ] = np.float32(0.0), np.float32(0.02)
        flat[HX], flat[HY] = box[HX] + abs(mid_x), box[HY] + abs(mid_y)
        flat[COS], flat[SIN] = box[COS], box[SIN]
        if not _pinhole_bounds(
            flat, origin, camera_from_ego, intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3], columns, rows,
            corners, bounds,
        ):  # fmt: skip
            continue
        x, y = origin[0] - box[CX], origin[1] - box[CY]
        ax, ay = box[COS] * x + box[SIN] * y, box[COS] * y - box[SIN] * x
        one = np.float32(1.0)
        u0, u1 = bounds[0], bounds[1]
        for v in range(bounds[2], bounds[3]):
            _shadow_row(
                shade[v, u0:u1], code[v, u0:u1], depth[v, u0:u1], dx[v, u0:u1], dy[v, u0:u1], ax, ay, box[COS],
                box[SIN], -box[HX], box[HX], -box[HY], box[HY], box[CZ] - box[HZ], top, one / sx, one / sy,
                one / sun[2],
            )  # fmt: skip


@njit(**FAST)
def light_faces(boxes, attributes, count, origin, sun, ambient, direct, faces):
    """Colour (float32 RGB) of the three faces of each box that the sensor can see; faces: (4 * MAX_BOXES, 3)."""
    for k in range(count):
        box, attribute = boxes[k], attributes[k]
        x, y, z = origin[0] - box[CX], origin[1] - box[CY], origin[2] - box[CZ]
        side_x = np.float32(1.0) if box[COS] * x + box[SIN] * y > 0 else np.float32(-1.0)
        side_y = np.float32(1.0) if box[COS] * y - box[SIN] * x > 0 else np.float32(-1.0)
        side_z = np.float32(1.0) if z > 0 else np.float32(-1.0)
        light_x = side_x * (box[COS] * sun[0] + box[SIN] * sun[1])
        light_y = side_y * (box[COS] * sun[1] - box[SIN] * sun[0])
        light_z = side_z * sun[2]
        for axis in range(3):
            cosine = light_x if axis == 0 else (light_y if axis == 1 else light_z)
            sky = np.float32(0.78) if axis < 2 else (np.float32(1.0) if side_z > 0 else np.float32(0.45))
            light = ambient * sky + direct * max(cosine, np.float32(0.0))
            if attribute[MATERIAL] == _LAMP_ON:
                light = np.float32(1.25)
            for c in range(3):
                faces[4 * k + axis, c] = np.float32(attribute[RED + c]) * light


@njit(**FAST)
def _facade(box, axis, px, py, pz, footprint, cell_seed):
    """How much of a facade's point is window (0 to 1), and how bright that window is; px, py, pz in the box's frame."""
    along = (py + box[HY]) if axis == 0 else (px + box[HX])
    up = pz + box[HZ]
    width = np.float32(2.0) * (box[HY] if axis == 0 else box[HX])
    bay = width / max(np.float32(1.0), np.float32(math.floor(width / np.float32(2.9))))
    storey = np.float32(3.1)
    i, j = math.floor(along / bay), math.floor(up / storey)
    u, v = along / bay - i, up / storey - j
    soft_u, soft_v = footprint / bay + np.float32(0.02), footprint / storey + np.float32(0.02)
    du = np.float32(0.27) - abs(u - np.float32(0.5))
    dv = np.float32(0.25) - abs(v - np.float32(0.55))
    inside = min(max(du / soft_u + np.float32(0.5), np.float32(0.0)), np.float32(1.0))
    inside *= min(max(dv / soft_v + np.float32(0.5), np.float32(0.0)), np.float32(1.0))
    if up + storey - v * storey > np.float32(2.0) * box[HZ] + np.float32(0.3):  # no cut-off storey under the roof
        inside = np.float32(0.0)
    return inside, np.float32(0.8) + np.float32(0.5) * grain(i * 7 + cell_seed, j)


@njit(**FAST)
def _ground_color(world_x, world_y, level, texels, offset, rows, columns, classes, origin, cell_m, out):
    """Colour of the ground at a world position, into out (3,); returns its class."""
    gx, gy = (world_x - origin[0]) / cell_m, (world_y - origin[1]) / cell_m
    c, r = math.floor(gx), math.floor(gy)
    inside = (c >= 0) & (r >= 0) & (c < columns[0]) & (r < rows[0])
    kind = classes[r, c] if inside else np.uint8(0)
    if level == 0 or not inside:
        noise = grain(math.floor(world_x * 12.0), math.floor(world_y * 12.0)) * np.float32(0.6)
        noise += grain(math.floor(world_x * 1.7) + 7919, math.floor(world_y * 1.7)) * np.float32(0.4)
        light = np.float32(1.0) + GRAIN_OF[kind] * noise * (np.float32(1.0) if level == 0 else np.float32(0.3))
        for k in range(3):
            out[k] = PALETTE[kind, k] * light
        return kind
    lc, lr = min(c >> level, columns[level] - 1), min(r >> level, rows[level] - 1)
    at = offset[level] + lr * columns[level] + lc
    coarse = grain(math.floor(world_x * 0.6), math.floor(world_y * 0.6)) * GRAIN_OF[kind] * np.float32(0.5)
    for k in range(3):
        out[k] = np.float32(texels[at, k]) * (np.float32(1.0) + coarse)
    return kind


@njit(**FAST)
def shade_camera(
    depth, code, shade, dx, dy, dz, stretch, level, origin, pixel_angle, boxes, attributes, faces, sun, ambient, direct,
    horizon, zenith, ego_x, ego_y, ego_cos, ego_sin, texels, offset, rows, columns, classes, raster_origin, cell_m,
    image, semantic, instance, labels, color,
):  # fmt: skip
    """Colour every pixel of one picture (and label it, if labels is set). Scalar: about 10 ns a pixel.

    stretch (H, W): length of the ray's direction. level (H, W): texture level of the ground there.
    """
    height, width = depth.shape
    open_sun = ambient + direct * sun[2]
    one, zero = np.float32(1.0), np.float32(0.0)
    for v in range(height):
        for u in range(width):
            hit, t = code[v, u], depth[v, u]
            distance = t * stretch[v, u]
            kind = np.uint8(_SKY)
            number = np.int32(0)
            if hit == SKY:
                up = max(dz[v, u] / stretch[v, u], zero)
                share = math.sqrt(min(up * np.float32(1.7), one))
                towards = (dx[v, u] * sun[0] + dy[v, u] * sun[1] + dz[v, u] * sun[2]) / stretch[v, u]
                glow = max(towards, zero)
                glow *= glow
                glow *= glow
                glow *= glow
                for c in range(3):
                    color[c] = horizon[c] + (zenith[c] - horizon[c]) * share + np.float32(38.0) * glow
            else:
                if hit == GROUND:
                    x, y = origin[0] + t * dx[v, u], origin[1] + t * dy[v, u]
                    world_x, world_y = ego_x + ego_cos * x - ego_sin * y, ego_y + ego_sin * x + ego_cos * y
                    ground = _ground_color(
                        world_x, world_y, level[v, u], texels, offset, rows, columns, classes, raster_origin, cell_m,
                        color,
                    )  # fmt: skip
                    light = open_sun * shade[v, u]
                    for c in range(3):
                        color[c] *= light
                    kind = SEMANTIC_OF[ground]
                else:
                    k, axis = hit >> 2, hit & 3
                    material = attributes[k, MATERIAL]
                    kind, number = np.uint8(attributes[k, SEMANTIC]), attributes[k, INSTANCE]
                    for c in range(3):
                        color[c] = faces[hit, c]
                    if material in (_FACADE, _FOLIAGE, _GLASS):
                        box = boxes[k]
                        x = origin[0] + t * dx[v, u] - box[CX]
                        y = origin[1] + t * dy[v, u] - box[CY]
                        pz = origin[2] + t * dz[v, u] - box[CZ]
                        px, py = box[COS] * x + box[SIN] * y, box[COS] * y - box[SIN] * x
                        if material == _FACADE and axis < 2:
                            window, bright = _facade(box, axis, px, py, pz, distance * pixel_angle, number & 1023)
                            for c in range(3):
                                pane = (np.float32(40.0) + np.float32(0.22) * zenith[c]) * bright
                                color[c] += (pane - color[c]) * window
                        elif material == _FOLIAGE:
                            leaf = grain(
                                math.floor(px * 4.0) + number * 31, math.floor(py * 4.0) * 57 + math.floor(pz * 4.0)
                            )
                            fade = one / (one + np.float32(0.03) * distance)
                            deep = np.float32(0.8) + np.float32(0.25) * pz / box[HZ]
                            for c in range(3):
                                color[c] *= deep * (one + np.float32(0.55) * leaf * fade)
                        elif material == _GLASS:
                            mirror = np.float32(0.20) + np.float32(0.25) * (pz / box[HZ] + one) * np.float32(0.5)
                            for c in range(3):
                                color[c] += (zenith[c] - color[c]) * mirror
                haze = distance / (distance + np.float32(900.0))
                for c in range(3):
                    color[c] += (horizon[c] - color[c]) * haze
            for c in range(3):
                image[v, u, c] = np.uint8(min(max(color[c], zero), np.float32(255.0)) + np.float32(0.49))
            if labels:
                semantic[v, u] = kind
                instance[v, u] = number


@njit(**FAST)
def _unit(key, index):
    """Number in [0, 1) of a 64-bit key and an index (SplitMix64's finalizer)."""
    h = key + np.uint64(index) * np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    h = h ^ (h >> np.uint64(31))
    return np.float32(h >> np.uint64(40)) * np.float32(1.0 / 16777216.0)


@njit(**FAST)
def measure_sweep(
    depth, code, dx, dy, dz, origin, boxes, attributes, ego_x, ego_y, ego_cos, ego_sin, classes, raster_origin, cell_m,
    min_range, max_range, noise_m, key, points, semantic, instance, labels,
):  # fmt: skip
    """Turn hits into returns: points (P, 4) float32 x y z intensity in ego, packed column after column; their number.

    A return needs enough light: reflectivity times the cosine of incidence, against a threshold that grows with the
    square of the range and a little chance. Noise on the range is a sum of four uniforms, of standard deviation
    noise_m. key: uint64 of (seed, episode, tick).
    """
    beams, columns = depth.shape
    count = 0
    scale = noise_m * np.float32(math.sqrt(3.0))
    rows, width = classes.shape
    for c in range(columns):
        for b in range(beams):
            hit, t = code[b, c], depth[b, c]
            if labels:
                semantic[b, c] = np.uint8(_SKY)
                instance[b, c] = 0
            if hit == SKY or t > max_range or t < min_range:
                continue
            if hit == GROUND:
                x, y = origin[0] + t * dx[b, c], origin[1] + t * dy[b, c]
                gx = ego_x + ego_cos * x - ego_sin * y - raster_origin[0]
                gy = ego_y + ego_sin * x + ego_cos * y - raster_origin[1]
                gc, gr = math.floor(gx / cell_m), math.floor(gy / cell_m)
                inside = (gc >= 0) & (gr >= 0) & (gc < width) & (gr < rows)
                ground = classes[gr, gc] if inside else np.uint8(0)
                bright, cosine = REFLECTIVITY_OF[ground], -dz[b, c]
                if labels:
                    semantic[b, c] = SEMANTIC_OF[ground]
            else:
                k, axis = hit >> 2, hit & 3
                bright = REFLECTIVITY[attributes[k, MATERIAL]]
                if axis == 0:
                    cosine = abs(boxes[k, COS] * dx[b, c] + boxes[k, SIN] * dy[b, c])
                elif axis == 1:
                    cosine = abs(boxes[k, COS] * dy[b, c] - boxes[k, SIN] * dx[b, c])
                else:
                    cosine = abs(dz[b, c])
                if labels:
                    semantic[b, c] = np.uint8(attributes[k, SEMANTIC])
                    instance[b, c] = attributes[k, INSTANCE]
            index = 8 * (b * columns + c)
            intensity = bright * (np.float32(0.25) + np.float32(0.75) * cosine)
            light = bright * cosine
            needed = np.float32(0.02) * (t / max_range) * (t / max_range) * (np.float32(0.5) + _unit(key, index))
            if light < needed:
                continue
            wobble = _unit(key, index + 1) + _unit(key, index + 2) + _unit(key, index + 3) + _unit(key, index + 4)
            r = t + scale * (wobble - np.float32(2.0))
            points[count, 0] = origin[0] + r * dx[b, c]
            points[count, 1] = origin[1] + r * dy[b, c]
            points[count, 2] = origin[2] + r * dz[b, c]
            points[count, 3] = min(intensity, np.float32(1.0))
            count += 1
    for k in range(count, points.shape[0]):
        for c in range(4):
            points[k, c] = np.float32(0.0)
    return count


assert BOX_COLUMNS == 8
