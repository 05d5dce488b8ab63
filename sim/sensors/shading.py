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
_SKY = int(SemanticClass.SKY)
SHADOW = np.float32(0.52)
SHADOW_RANGE_M = np.float32(60.0)
GROUND = np.int32(-1)
SKY = np.int32(-2)
HAZE_M = np.float32(900.0)
PER_STOREY = np.float32(1.0 / 3.1)
PANE_COLUMNS = 7

# Share of the light at 905 nm that comes back at normal incidence, by material; signs and lamps are retro-reflectors.
REFLECTIVITY = np.array(
    [0.35, 0.45, 0.06, 0.05, 0.55, 0.42, 0.25, 0.45, 0.25, 0.40, 0.95, 0.60, 0.60, 0.30], np.float32
)
assert len(REFLECTIVITY) == len(Material)


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
        if distance - size > SHADOW_RANGE_M or size < np.float32(0.01) * distance or size < np.float32(0.2):
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
def light_faces(boxes, attributes, count, origin, sun, ambient, direct, horizon, zenith, faces, panes):
    """Colour (float32 RGB) of the three faces of each box that the sensor can see; faces: (4 * MAX_BOXES, 3).

    Haze is that of the box's nearest point, so that a pixel need not work it out. panes (MAX_BOXES, PANE_COLUMNS) gets
    what is mirrored in windows (RGB, hazed), and for facades window bays per metre along x and along y, whole storeys,
    and a tile offset.
    """
    for k in range(count):
        box, attribute = boxes[k], attributes[k]
        if attribute[MATERIAL] == _FACADE:
            for side in range(2):
                width = np.float32(2.0) * box[HX + side]
                bays = max(np.float32(1.0), np.float32(math.floor(width / np.float32(2.9))))
                panes[k, 3 + side] = bays / width
            panes[k, 5] = np.float32(math.floor(np.float32(2.0) * box[HZ] * PER_STOREY + np.float32(0.1)))
            panes[k, 6] = np.float32((attribute[INSTANCE] * 37) & 255)
        x, y, z = origin[0] - box[CX], origin[1] - box[CY], origin[2] - box[CZ]
        away = max(math.sqrt(x * x + y * y) - max(box[HX], box[HY]), np.float32(0.0))
        haze = away / (away + HAZE_M)
        clear = np.float32(1.0) - haze
        for c in range(3):
            pane = (np.float32(40.0) + np.float32(0.22) * zenith[c]) if attribute[MATERIAL] == _FACADE else zenith[c]
            panes[k, c] = pane * clear + horizon[c] * haze
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
                faces[4 * k + axis, c] = np.float32(attribute[RED + c]) * light * clear + horizon[c] * haze


@njit(**FAST)
def _facade(boxes, panes, k, axis, px, py, pz, footprint, noise):
    """How much of a facade's point is window (0 to 1), and how bright that window is; px, py, pz in the box's frame."""
    zero, one, half = np.float32(0.0), np.float32(1.0), np.float32(0.5)
    per_bay = panes[k, 4] if axis == 0 else panes[k, 3]
    u = ((py + boxes[k, HY]) if axis == 0 else (px + boxes[k, HX])) * per_bay
    v = (pz + boxes[k, HZ]) * PER_STOREY
    i, j = np.int32(u), np.int32(v)
    du = np.float32(0.27) - abs(u - np.float32(i) - half)
    dv = np.float32(0.25) - abs(v - np.float32(j) - np.float32(0.55))
    sharp = one / (footprint * per_bay + np.float32(0.02))
    across = du * sharp + half
    upward = dv * sharp + half
    across = across if across > zero else zero
    across = across if across < one else one
    upward = upward if upward > zero else zero
    upward = upward if upward < one else one
    inside = across * upward if v < panes[k, 5] else zero
    column = np.uint32(i + np.int32(panes[k, 6])) & np.uint32(255)
    return inside, np.float32(0.8) + half * noise[np.uint32(j) & np.uint32(255), column]


@njit(**FAST)
def _byte(value):
    """A colour as uint8, cut off at 0 and 255."""
    value = value if value > np.float32(0.0) else np.float32(0.0)
    return np.uint8(value if value < np.float32(255.0) else np.float32(255.0))


@njit(**FAST)
def shade_camera(
    depth, code, shade, dx, dy, dz, stretch, level, ground_x, ground_y, haze, sky_share, origin, pixel_angle, boxes,
    attributes, faces, panes, sun, ambient, direct, horizon, zenith, ego_x, ego_y, ego_cos, ego_sin, texels, offset,
    columns, classes, raster_origin, cell_m, noise, image, semantic, instance, labels,
):  # fmt: skip
    """Colour every pixel of one picture (and label it, if labels is set).

    What does not change with time is in tables (H, W): stretch, the length of the ray's direction; where the ray meets
    the ground in ego (ground_x, ground_y), the texture level and the haze there; sky_share, how near the zenith it
    looks. noise: (256, 256) float32 in [-0.5, 0.5). Positions are split into whole cells and a float32 rest. Arrays are
    addressed as a[k, column], because a view a[k] would be counted, atomically, for every pixel.
    """
    at_x, at_y = (ego_x - raster_origin[0]) / cell_m, (ego_y - raster_origin[1]) / cell_m
    base_x, base_y = np.int32(math.floor(at_x)), np.int32(math.floor(at_y))
    cell_x, cell_y = np.float32(at_x - base_x), np.float32(at_y - base_y)
    cos_cell, sin_cell = np.float32(ego_cos / cell_m), np.float32(ego_sin / cell_m)
    open_sun = ambient + direct * sun[2]
    rows_0, columns_0 = classes.shape
    one, four = np.float32(1.0), np.float32(4.0)
    ox, oy, oz = origin[0], origin[1], origin[2]
    sun_x, sun_y, sun_z = sun[0], sun[1], sun[2]
    horizon_r, horizon_g, horizon_b = horizon[0], horizon[1], horizon[2]
    up_r, up_g, up_b = zenith[0] - horizon_r, zenith[1] - horizon_g, zenith[2] - horizon_b
    low = np.uint32(255)
    for v in range(depth.shape[0]):
        for u in range(depth.shape[1]):
            hit = code[v, u]
            kind, number = np.uint8(_SKY), np.int32(0)
            if hit >= 0:
                face, k = np.uint32(hit), np.uint32(hit >> 2)
                red, green, blue = faces[face, 0], faces[face, 1], faces[face, 2]
                material = attributes[k, MATERIAL]
                if labels:
                    kind, number = np.uint8(attributes[k, SEMANTIC]), attributes[k, INSTANCE]
                if (material == _FACADE) | (material == _FOLIAGE) | (material == _GLASS):
                    t = depth[v, u]
                    x = ox + t * dx[v, u] - boxes[k, CX]
                    y = oy + t * dy[v, u] - boxes[k, CY]
                    z = oz + t * dz[v, u] - boxes[k, CZ]
                    px, py = boxes[k, COS] * x + boxes[k, SIN] * y, boxes[k, COS] * y - boxes[k, SIN] * x
                    footprint = t * stretch[v, u] * pixel_angle
                    if material == _FACADE:
                        if hit & 3 < 2:
                            window, bright = _facade(boxes, panes, k, hit & 3, px, py, z, footprint, noise)
                            red += (panes[k, 0] * bright - red) * window
                            green += (panes[k, 1] * bright - green) * window
                            blue += (panes[k, 2] * bright - blue) * window
                    elif material == _FOLIAGE:
                        i = np.int32(math.floor(px * four)) + np.int32(math.floor(z * four)) * np.int32(17)
                        i += attributes[k, INSTANCE]
                        j = np.int32(math.floor(py * four))
                        leaf = noise[np.uint32(j) & low, np.uint32(i) & low]
                        light = np.float32(0.8) + np.float32(0.25) * z / boxes[k, HZ]
                        light *= one + np.float32(0.55) * leaf / (one + np.float32(12.0) * footprint)
                        red, green, blue = red * light, green * light, blue * light
                    else:
                        mirror = np.float32(0.20) + np.float32(0.125) * (z / boxes[k, HZ] + one)
                        red += (panes[k, 0] - red) * mirror
                        green += (panes[k, 1] - green) * mirror
                        blue += (panes[k, 2] - blue) * mirror
            elif hit == GROUND:
                gx, gy = ground_x[v, u], ground_y[v, u]
                c = base_x + np.int32(math.floor(cell_x + cos_cell * gx - sin_cell * gy))
                r = base_y + np.int32(math.floor(cell_y + sin_cell * gx + cos_cell * gy))
                inside = (c >= 0) & (r >= 0) & (c < columns_0) & (r < rows_0)
                ground = classes[np.uint32(r), np.uint32(c)] if inside else np.uint8(0)
                if labels:
                    kind = SEMANTIC_OF[ground]
                rough = noise[np.uint32(r >> 4) & low, np.uint32(c >> 4) & low]
                fine = level[v, u]
                if fine == 0 or not inside:
                    grainy = noise[np.uint32(r) & low, np.uint32(c) & low]
                    grainy = grainy if fine == 0 else np.float32(0.0)
                    light = one + GRAIN_OF[ground] * (np.float32(0.6) * grainy + np.float32(0.4) * rough)
                    red, green, blue = PALETTE[ground, 0], PALETTE[ground, 1], PALETTE[ground, 2]
                else:
                    at = np.uint64(offset[fine] + (r >> fine) * columns[fine] + (c >> fine))
                    light = one + GRAIN_OF[ground] * np.float32(0.5) * rough
                    red, green, blue = np.float32(texels[at, 0]), np.float32(texels[at, 1]), np.float32(texels[at, 2])
                far = haze[v, u]
                light *= open_sun * shade[v, u] * (one - far)
                red, green, blue = (
                    red * light + horizon_r * far,
                    green * light + horizon_g * far,
                    blue * light + horizon_b * far,
                )
            else:
                glow = (dx[v, u] * sun_x + dy[v, u] * sun_y + dz[v, u] * sun_z) / stretch[v, u]
                glow = glow if glow > 0 else np.float32(0.0)
                glow *= glow
                glow *= glow
                glow *= glow
                glow *= np.float32(38.0)
                up = sky_share[v, u]
                red, green, blue = (
                    horizon_r + up_r * up + glow,
                    horizon_g + up_g * up + glow,
                    horizon_b + up_b * up + glow,
                )
            image[v, u, 0] = _byte(red)
            image[v, u, 1] = _byte(green)
            image[v, u, 2] = _byte(blue)
            if labels:
                semantic[v, u], instance[v, u] = kind, number


@njit(**FAST)
def measure_sweep(
    depth, code, dx, dy, dz, origin, boxes, attributes, ego_x, ego_y, ego_cos, ego_sin, classes, raster_origin, cell_m,
    min_range, max_range, noise_m, key, normal, points, semantic, instance, labels,
):  # fmt: skip
    """Turn hits into returns: points (P, 4) float32 x y z intensity in ego, packed beam after beam; their number.

    A return needs enough light: reflectivity times the cosine of incidence, against a threshold that grows with the
    square of the range and a little chance. normal: (65536,) float32 standard normal numbers; key, a uint64 of (seed,
    episode, tick), says where in them this sweep starts and how far it steps from ray to ray, so every ray of a sweep
    gets a number of its own. noise_m: standard deviation of the range.
    """
    beams, columns = depth.shape
    count = 0
    place = np.uint32(key & np.uint64(0xFFFF))
    stride = np.uint32((key >> np.uint64(16)) & np.uint64(0xFFFE)) | np.uint32(1)
    rows, width = classes.shape
    at_x, at_y = (ego_x - raster_origin[0]) / cell_m, (ego_y - raster_origin[1]) / cell_m
    base_x, base_y = np.int32(math.floor(at_x)), np.int32(math.floor(at_y))
    cell_x, cell_y = np.float32(at_x - base_x), np.float32(at_y - base_y)
    cos_cell, sin_cell = np.float32(ego_cos / cell_m), np.float32(ego_sin / cell_m)
    per_range = np.float32(1.0) / max_range
    for b in range(beams):
        for c in range(columns):
            hit, t = code[b, c], depth[b, c]
            if labels:
                semantic[b, c] = np.uint8(_SKY)
                instance[b, c] = 0
            if hit == SKY or t > max_range or t < min_range:
                continue
            if hit == GROUND:
                x, y = origin[0] + t * dx[b, c], origin[1] + t * dy[b, c]
                gc = base_x + np.int32(math.floor(cell_x + cos_cell * x - sin_cell * y))
                gr = base_y + np.int32(math.floor(cell_y + sin_cell * x + cos_cell * y))
                inside = (gc >= 0) & (gr >= 0) & (gc < width) & (gr < rows)
                ground = classes[np.uint32(gr), np.uint32(gc)] if inside else np.uint8(0)
                bright, cosine = REFLECTIVITY_OF[ground], -dz[b, c]
                if labels:
                    semantic[b, c] = SEMANTIC_OF[ground]
            else:
                k, axis = np.uint32(hit >> 2), hit & 3
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
            wobble = normal[(place + np.uint32(b * columns + c) * stride) & np.uint32(0xFFFF)]
            share = t * per_range
            if bright * cosine < np.float32(0.02) * share * share * (np.float32(1.0) + np.float32(0.3) * wobble):
                continue
            r = t + noise_m * wobble
            points[count, 0] = origin[0] + r * dx[b, c]
            points[count, 1] = origin[1] + r * dy[b, c]
            points[count, 2] = origin[2] + r * dz[b, c]
            points[count, 3] = min(bright * (np.float32(0.25) + np.float32(0.75) * cosine), np.float32(1.0))
            count += 1
    for k in range(count, points.shape[0]):
        for c in range(4):
            points[k, c] = np.float32(0.0)
    return count


assert BOX_COLUMNS == 8
