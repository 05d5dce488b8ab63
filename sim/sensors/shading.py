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
SHADOW_RANGE_M = np.float32(70.0)
GROUND = np.int32(-1)
SKY = np.int32(-2)
HAZE_M = np.float32(900.0)
PER_STOREY = np.float32(1.0 / 3.1)

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
def light_faces(boxes, attributes, count, origin, sun, ambient, direct, faces, panes):
    """Colour (float32 RGB) of the three faces of each box that the sensor can see; faces: (4 * MAX_BOXES, 3).

    panes (MAX_BOXES, 4) gets, for facades, window bays per metre along x and along y, whole storeys, and a tile offset.
    """
    for k in range(count):
        box, attribute = boxes[k], attributes[k]
        if attribute[MATERIAL] == _FACADE:
            for side in range(2):
                width = np.float32(2.0) * box[HX + side]
                bays = max(np.float32(1.0), np.float32(math.floor(width / np.float32(2.9))))
                panes[k, side] = bays / width
            panes[k, 2] = np.float32(math.floor(np.float32(2.0) * box[HZ] * PER_STOREY + np.float32(0.1)))
            panes[k, 3] = np.float32((attribute[INSTANCE] * 37) & 255)
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
def _facade(boxes, panes, k, axis, px, py, pz, footprint, noise):
    """How much of a facade's point is window (0 to 1), and how bright that window is; px, py, pz in the box's frame."""
    zero, one, half = np.float32(0.0), np.float32(1.0), np.float32(0.5)
    per_bay = panes[k, 1] if axis == 0 else panes[k, 0]
    u = ((py + boxes[k, HY]) if axis == 0 else (px + boxes[k, HX])) * per_bay
    v = (pz + boxes[k, HZ]) * PER_STOREY
    i, j = np.int32(u), np.int32(v)
    du = np.float32(0.27) - abs(u - np.float32(i) - half)
    dv = np.float32(0.25) - abs(v - np.float32(j) - np.float32(0.55))
    across = du / (footprint * per_bay + np.float32(0.02)) + half
    upward = dv / (footprint * PER_STOREY + np.float32(0.02)) + half
    across = across if across > zero else zero
    across = across if across < one else one
    upward = upward if upward > zero else zero
    upward = upward if upward < one else one
    inside = across * upward if v < panes[k, 2] else zero
    column = np.uint32(i + np.int32(panes[k, 3])) & np.uint32(255)
    return inside, np.float32(0.8) + half * noise[np.uint32(j) & np.uint32(255), column]


@njit(**FAST)
def _byte(value):
    """A colour as uint8, cut off at 0 and 255."""
    value = value if value > np.float32(0.0) else np.float32(0.0)
    return np.uint8(value if value < np.float32(255.0) else np.float32(255.0))


@njit(**FAST)
def _ground_row(
    code,
    shade,
    gx,
    gy,
    level,
    haze,
    cell_x,
    cell_y,
    base_x,
    base_y,
    cos_cell,
    sin_cell,
    texels,
    offset,
    columns,
    classes,
    noise,
    open_sun,
    horizon,
    image,
    semantic,
    instance,
    labels,
):
    """Colour the ground pixels of one row; see `shade_camera` for the arguments."""
    rows_0, columns_0 = classes.shape
    one = np.float32(1.0)
    for u in range(code.shape[0]):
        if code[u] != GROUND:
            continue
        c = base_x + np.int32(math.floor(cell_x + cos_cell * gx[u] - sin_cell * gy[u]))
        r = base_y + np.int32(math.floor(cell_y + sin_cell * gx[u] + cos_cell * gy[u]))
        inside = (c >= 0) & (r >= 0) & (c < columns_0) & (r < rows_0)
        kind = classes[np.uint32(r), np.uint32(c)] if inside else np.uint8(0)
        rough = noise[np.uint32(r >> 4) & np.uint32(255), np.uint32(c >> 4) & np.uint32(255)]
        fine = level[u]
        if fine == 0 or not inside:
            grainy = noise[np.uint32(r) & np.uint32(255), np.uint32(c) & np.uint32(255)]
            grainy = grainy if fine == 0 else np.float32(0.0)
            light = one + GRAIN_OF[kind] * (np.float32(0.6) * grainy + np.float32(0.4) * rough)
            red, green, blue = PALETTE[kind, 0], PALETTE[kind, 1], PALETTE[kind, 2]
        else:
            at = np.uint64(offset[fine] + (r >> fine) * columns[fine] + (c >> fine))
            light = one + GRAIN_OF[kind] * np.float32(0.5) * rough
            red, green, blue = np.float32(texels[at, 0]), np.float32(texels[at, 1]), np.float32(texels[at, 2])
        light *= open_sun * shade[u] * (one - haze[u])
        image[u, 0] = _byte(red * light + horizon[0] * haze[u])
        image[u, 1] = _byte(green * light + horizon[1] * haze[u])
        image[u, 2] = _byte(blue * light + horizon[2] * haze[u])
        if labels:
            semantic[u], instance[u] = SEMANTIC_OF[kind], np.int32(0)


@njit(**FAST)
def _sky_row(code, dx, dy, dz, stretch, sky_share, sun, horizon, zenith, image, semantic, instance, labels):
    """Colour the sky pixels of one row: from horizon to zenith, brighter around the sun."""
    for u in range(code.shape[0]):
        if code[u] != SKY:
            continue
        glow = max(dx[u] * sun[0] + dy[u] * sun[1] + dz[u] * sun[2], np.float32(0.0)) / stretch[u]
        glow *= glow
        glow *= glow
        glow *= glow
        glow *= np.float32(38.0)
        image[u, 0] = _byte(horizon[0] + (zenith[0] - horizon[0]) * sky_share[u] + glow)
        image[u, 1] = _byte(horizon[1] + (zenith[1] - horizon[1]) * sky_share[u] + glow)
        image[u, 2] = _byte(horizon[2] + (zenith[2] - horizon[2]) * sky_share[u] + glow)
        if labels:
            semantic[u], instance[u] = np.uint8(_SKY), np.int32(0)


@njit(**FAST)
def _textured(boxes, panes, k, material, axis, x, y, z, footprint, number, red, green, blue, zenith, noise):
    """Colour of a facade, a crown or a window pane; x, y, z: the point relative to the box's centre, in ego.

    Rows are addressed as boxes[k, column]: a view boxes[k] would be counted, atomically, for every pixel.
    """
    one = np.float32(1.0)
    px, py = boxes[k, COS] * x + boxes[k, SIN] * y, boxes[k, COS] * y - boxes[k, SIN] * x
    if material == _FACADE:
        if axis < 2:
            window, bright = _facade(boxes, panes, k, axis, px, py, z, footprint, noise)
            pane, sky = np.float32(40.0) * bright, np.float32(0.22) * bright
            red += (pane + sky * zenith[0] - red) * window
            green += (pane + sky * zenith[1] - green) * window
            blue += (pane + sky * zenith[2] - blue) * window
    elif material == _FOLIAGE:
        four = np.float32(4.0)
        i = np.int32(math.floor(px * four)) + np.int32(math.floor(z * four)) * np.int32(17) + number
        j = np.int32(math.floor(py * four))
        leaf = noise[np.uint32(j) & np.uint32(255), np.uint32(i) & np.uint32(255)]
        light = np.float32(0.8) + np.float32(0.25) * z / boxes[k, HZ]
        light *= one + np.float32(0.55) * leaf / (one + np.float32(12.0) * footprint)
        red, green, blue = red * light, green * light, blue * light
    else:
        mirror = np.float32(0.20) + np.float32(0.125) * (z / boxes[k, HZ] + one)
        red += (zenith[0] - red) * mirror
        green += (zenith[1] - green) * mirror
        blue += (zenith[2] - blue) * mirror
    return red, green, blue


@njit(**FAST)
def _box_row(
    code,
    depth,
    dx,
    dy,
    dz,
    stretch,
    origin,
    pixel_angle,
    boxes,
    attributes,
    faces,
    panes,
    noise,
    horizon,
    zenith,
    image,
    semantic,
    instance,
    labels,
):
    """Colour the pixels of one row that show a box."""
    for u in range(code.shape[0]):
        hit = code[u]
        if hit < 0:
            continue
        face, k, t = np.uint32(hit), np.uint32(hit >> 2), depth[u]
        distance = t * stretch[u]
        red, green, blue = faces[face, 0], faces[face, 1], faces[face, 2]
        material = attributes[k, MATERIAL]
        if (material == _FACADE) | (material == _FOLIAGE) | (material == _GLASS):
            red, green, blue = _textured(
                boxes, panes, k, material, hit & 3, origin[0] + t * dx[u] - boxes[k, CX],
                origin[1] + t * dy[u] - boxes[k, CY], origin[2] + t * dz[u] - boxes[k, CZ], distance * pixel_angle,
                attributes[k, INSTANCE], red, green, blue, zenith, noise,
            )  # fmt: skip
        haze = distance / (distance + HAZE_M)
        image[u, 0] = _byte(red + (horizon[0] - red) * haze)
        image[u, 1] = _byte(green + (horizon[1] - green) * haze)
        image[u, 2] = _byte(blue + (horizon[2] - blue) * haze)
        if labels:
            semantic[u], instance[u] = np.uint8(attributes[k, SEMANTIC]), attributes[k, INSTANCE]


@njit(**FAST)
def shade_camera(
    depth, code, shade, dx, dy, dz, stretch, level, ground_x, ground_y, haze, sky_share, origin, pixel_angle, boxes,
    attributes, faces, panes, sun, ambient, direct, horizon, zenith, ego_x, ego_y, ego_cos, ego_sin, texels, offset, columns,
    classes, raster_origin, cell_m, noise, image, semantic, instance, labels,
):  # fmt: skip
    """Colour every pixel of one picture (and label it, if labels is set).

    What does not change with time is in tables (H, W): stretch, the length of the ray's direction; where the ray meets
    the ground in ego (ground_x, ground_y), the texture level and the haze there; sky_share, how near the zenith it
    looks. noise: (256, 256) float32 in [-0.5, 0.5). Positions are split into whole cells and a float32 rest.
    """
    at_x, at_y = (ego_x - raster_origin[0]) / cell_m, (ego_y - raster_origin[1]) / cell_m
    base_x, base_y = np.int32(math.floor(at_x)), np.int32(math.floor(at_y))
    cell_x, cell_y = np.float32(at_x - base_x), np.float32(at_y - base_y)
    cos_cell, sin_cell = np.float32(ego_cos / cell_m), np.float32(ego_sin / cell_m)
    open_sun = ambient + direct * sun[2]
    for v in range(depth.shape[0]):
        w = v if labels else 0
        _ground_row(
            code[v], shade[v], ground_x[v], ground_y[v], level[v], haze[v], cell_x, cell_y, base_x, base_y, cos_cell,
            sin_cell, texels, offset, columns, classes, noise, open_sun, horizon, image[v], semantic[w], instance[w],
            labels,
        )  # fmt: skip
        _sky_row(
            code[v], dx[v], dy[v], dz[v], stretch[v], sky_share[v], sun, horizon, zenith, image[v], semantic[w],
            instance[w], labels,
        )  # fmt: skip
        _box_row(
            code[v], depth[v], dx[v], dy[v], dz[v], stretch[v], origin, pixel_angle, boxes, attributes, faces, panes,
            noise, horizon, zenith, image[v], semantic[w], instance[w], labels,
        )  # fmt: skip


@njit(**FAST)
def _bits(key, index):
    """64 random bits of a key and an index (SplitMix64's finalizer)."""
    h = key + np.uint64(index) * np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@njit(**FAST)
def _piece(bits, place):
    """The place-th 12 bits as a number in [0, 1)."""
    return np.float32((bits >> np.uint64(12 * place)) & np.uint64(4095)) * np.float32(1.0 / 4096.0)


@njit(**FAST)
def measure_sweep(
    depth, code, dx, dy, dz, origin, boxes, attributes, ego_x, ego_y, ego_cos, ego_sin, classes, raster_origin, cell_m,
    min_range, max_range, noise_m, key, points, semantic, instance, labels,
):  # fmt: skip
    """Turn hits into returns: points (P, 4) float32 x y z intensity in ego, packed beam after beam; their number.

    A return needs enough light: reflectivity times the cosine of incidence, against a threshold that grows with the
    square of the range and a little chance. Noise on the range is a sum of four uniforms, of standard deviation
    noise_m. key: uint64 of (seed, episode, tick).
    """
    beams, columns = depth.shape
    count = 0
    scale = noise_m * np.float32(math.sqrt(3.0))
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
            bits = _bits(key, b * columns + c)
            share = t * per_range
            if bright * cosine < np.float32(0.02) * share * share * (np.float32(0.5) + _piece(bits, 4)):
                continue
            wobble = _piece(bits, 0) + _piece(bits, 1) + _piece(bits, 2) + _piece(bits, 3)
            r = t + scale * (wobble - np.float32(2.0))
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
