"""Colours of what a camera's rays met: one pass over the picture after casting, row by row.

Knows hits, materials, the ground's texture and the light; knows nothing about traffic or environments. A row is shaded as
sky and as ground as a whole, which vectorises, then each run of pixels with the same face is painted over it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from perception.sensors import SemanticClass
from sim.sensors.cast import (
    COS,
    CURVED,
    CX,
    CY,
    CZ,
    FAST,
    GROUND,
    HX,
    HY,
    HZ,
    SHAPE,
    SIN,
    SKY,
    face_normal,
    normal_weights,
)
from sim.sensors.ground_texture import GRAIN_OF, PALETTE, SEMANTIC_OF, cells_row, raster_place
from sim.sensors.parts import INSTANCE, MATERIAL, RED, SEMANTIC
from sim.solids import Material, Shape

_GLASS, _FACADE, _FOLIAGE = int(Material.GLASS), int(Material.FACADE), int(Material.FOLIAGE)
_LAMP_ON = int(Material.LAMP_ON)
_BOX, _WEDGE = int(Shape.BOX), int(Shape.WEDGE)
_SKY_CLASS = np.uint8(SemanticClass.SKY)
HAZE_M = np.float32(900.0)
PER_STOREY = np.float32(1.0 / 3.1)
# Columns of a box's panes: what is mirrored in its glass (RGB), window bays per metre along x and y, whole storeys, a number
# that tells its windows or leaves from those of others, and the haze before it (RGB).
PANE, BAYS, STOREYS, TILE, VEIL = 0, 3, 5, 6, 7
PANE_COLUMNS = 10
# Light that reaches a face from the sky, by which way it faces: aside, up, down.
_ASIDE, _UP, _DOWN = np.float32(0.78), np.float32(1.0), np.float32(0.45)
# Rows of scratch: float32 red, green, blue, then red, green, blue and texture of the ground; int32 its column and row.
COLOR_ROWS, CELL_ROWS = 7, 2


@njit(**FAST)
def light_faces(boxes, attributes, drawn, count, origin, sun, ambient, direct, horizon, zenith, faces, panes):
    """Colour (float32 RGB) of the faces that the sensor can see of boxes drawn[:count]; faces: (4 * MAX_BOXES, 3).

    A curved face gets its colour in full light: each pixel has a normal of its own. Haze is that of the box's nearest point,
    so that a pixel need not work it out. panes: (MAX_BOXES, PANE_COLUMNS).
    """
    one, zero = np.float32(1.0), np.float32(0.0)
    for place in range(count):
        k = drawn[place]
        box, attribute = boxes[k], attributes[k]
        facade = attribute[MATERIAL] == _FACADE
        if facade:
            for side in range(2):
                width = np.float32(2.0) * box[HX + side]
                bays = max(one, np.float32(math.floor(width / np.float32(2.9))))
                panes[k, BAYS + side] = bays / width
            panes[k, STOREYS] = np.float32(math.floor(np.float32(2.0) * box[HZ] * PER_STOREY + np.float32(0.1)))
        panes[k, TILE] = np.float32(attribute[INSTANCE] & 0xFFFFF)
        x, y, z = origin[0] - box[CX], origin[1] - box[CY], origin[2] - box[CZ]
        away = max(math.sqrt(x * x + y * y) - max(box[HX], box[HY]), zero)
        haze = away / (away + HAZE_M)
        clear = one - haze
        for c in range(3):
            pane = (np.float32(40.0) + np.float32(0.22) * zenith[c]) if facade else zenith[c]
            panes[k, PANE + c] = pane * clear + horizon[c] * haze
            panes[k, VEIL + c] = horizon[c] * haze
        side_x = one if box[COS] * x + box[SIN] * y > 0 else -one
        side_y = one if box[COS] * y - box[SIN] * x > 0 else -one
        side_z = one if z > 0 else -one
        light_x = side_x * (box[COS] * sun[0] + box[SIN] * sun[1])
        light_y = side_y * (box[COS] * sun[1] - box[SIN] * sun[0])
        light_z = side_z * sun[2]
        for axis in range(3):
            cosine = light_x if axis == 0 else (light_y if axis == 1 else light_z)
            sky = _ASIDE if axis < 2 else (_UP if side_z > 0 else _DOWN)
            light = ambient * sky + direct * max(cosine, zero)
            if attribute[MATERIAL] == _LAMP_ON:
                light = np.float32(1.25)
            for c in range(3):
                faces[4 * k + axis, c] = np.float32(attribute[RED + c]) * light * clear + panes[k, VEIL + c]
        shape = np.int32(box[SHAPE])
        if shape != _BOX:
            light = one
            if shape == _WEDGE:
                nx, ny, nz = face_normal(box, CURVED)
                cosine = nx * sun[0] + ny * sun[1] + nz * sun[2]
                light = ambient * (_ASIDE + (_UP - _ASIDE) * nz) + direct * max(cosine, zero)
            for c in range(3):
                faces[4 * k + CURVED, c] = np.float32(attribute[RED + c]) * light * clear + panes[k, VEIL + c]


@njit(**FAST)
def _hash_share(i, j, tile):
    """A number in [-0.5, 0.5) that belongs to the cell (i, j) of a tile; int32 in, float32 out."""
    h = np.uint32(i) * np.uint32(0x9E3779B1) ^ np.uint32(j) * np.uint32(0x85EBCA77) ^ tile
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0xC2B2AE3D)
    h = h ^ (h >> np.uint32(13))
    return np.float32(np.int32(h & np.uint32(0xFFFF)) - np.int32(0x8000)) * np.float32(1.0 / 0x10000)


@njit(**FAST)
def _floor(value):
    """The next lower whole number as int32, in a form that vectorises."""
    whole = np.int32(value)
    return whole - np.int32(1) if value < np.float32(whole) else whole


@njit(**FAST)
def _row_contents(code):
    """Whether a row has sky, and whether it has ground."""
    sky, ground = 0, 0
    for i in range(code.shape[0]):
        sky += 1 if code[i] == SKY else 0
        ground += 1 if code[i] == GROUND else 0
    return sky > 0, ground > 0


@njit(**FAST)
def _sky_row(dx, dy, dz, sx, sy, sz, horizon, zenith, red, green, blue):
    """The sky in the directions of a row, s being the sun: brighter around it, deeper blue higher up."""
    one, zero = np.float32(1.0), np.float32(0.0)
    r, g, b = horizon[0], horizon[1], horizon[2]
    up_r, up_g, up_b = zenith[0] - r, zenith[1] - g, zenith[2] - b
    for i in range(dx.shape[0]):
        per_length = one / math.sqrt(dx[i] * dx[i] + dy[i] * dy[i] + dz[i] * dz[i])
        glow = (dx[i] * sx + dy[i] * sy + dz[i] * sz) * per_length
        glow = glow if glow > zero else zero
        glow *= glow
        glow *= glow
        glow *= glow
        glow *= np.float32(38.0)
        up = np.float32(1.7) * dz[i] * per_length
        up = up if up > zero else zero
        up = math.sqrt(up if up < one else one)
        red[i], green[i], blue[i] = r + up_r * up + glow, g + up_g * up + glow, b + up_b * up + glow


@njit(**FAST)
def _ground_texels_row(code, level, cell_column, cell_row, ground, noise, colors, semantic, labels):
    """Base colour and texture of the ground pixels of a row, into the last four rows of colors (and their class)."""
    texels, offset, columns, classes, _, _ = ground
    low = np.uint32(255)
    rows_0, columns_0 = np.uint32(classes.shape[0]), np.uint32(classes.shape[1])
    for u in range(code.shape[0]):
        if code[u] != GROUND:
            continue
        c, r = cell_column[u], cell_row[u]
        inside = (np.uint32(c) < columns_0) & (np.uint32(r) < rows_0)
        kind = classes[np.uint32(r), np.uint32(c)] if inside else np.uint8(0)
        if labels:
            semantic[u] = SEMANTIC_OF[kind]
        fine = np.int32(level[u])
        rough = noise[np.uint32(r >> 4) & low, np.uint32(c >> 4) & low]
        if (fine == 0) | (not inside):
            grainy = noise[np.uint32(r) & low, np.uint32(c) & low] if fine == 0 else np.float32(0.0)
            colors[6, u] = GRAIN_OF[kind] * (np.float32(0.6) * grainy + np.float32(0.4) * rough)
            colors[3, u], colors[4, u], colors[5, u] = PALETTE[kind, 0], PALETTE[kind, 1], PALETTE[kind, 2]
        else:
            at = np.uint64(offset[fine] + (r >> fine) * columns[fine] + (c >> fine))
            colors[6, u] = GRAIN_OF[kind] * np.float32(0.5) * rough
            colors[3, u] = np.float32(texels[at, 0])
            colors[4, u] = np.float32(texels[at, 1])
            colors[5, u] = np.float32(texels[at, 2])


@njit(**FAST)
def _ground_light_row(
    code, depth, dx, dy, dz, shade, open_sun, horizon, base_r, base_g, base_b, texture, red, green, blue
):
    """Light and haze on the ground pixels of a row; shade: uint8, 255 where the sun shines."""
    one = np.float32(1.0)
    r, g, b = horizon[0], horizon[1], horizon[2]
    per_level = open_sun * np.float32(1.0 / 255.0)
    for i in range(code.shape[0]):
        distance = depth[i] * math.sqrt(dx[i] * dx[i] + dy[i] * dy[i] + dz[i] * dz[i])
        haze = distance / (distance + HAZE_M)
        light = (one + texture[i]) * per_level * np.float32(np.int32(shade[i])) * (one - haze)
        ground = code[i] == GROUND
        red[i] = base_r[i] * light + r * haze if ground else red[i]
        green[i] = base_g[i] * light + g * haze if ground else green[i]
        blue[i] = base_b[i] * light + b * haze if ground else blue[i]


@njit(**FAST)
def _facade_run(
    red, green, blue, depth, dx, dy, dz, along, per_x, per_y, up, per_bay, storeys, tile, pane_r, pane_g, pane_b, pixel_angle
):  # fmt: skip
    """Windows on a run of pixels of one wall. along + depth * (per_x * dx + per_y * dy): metres along the wall; up +
    depth * dz: metres above its foot."""
    zero, one, half = np.float32(0.0), np.float32(1.0), np.float32(0.5)
    for i in range(red.shape[0]):
        t = depth[i]
        u = (along + t * (per_x * dx[i] + per_y * dy[i])) * per_bay
        v = (up + t * dz[i]) * PER_STOREY
        footprint = t * math.sqrt(dx[i] * dx[i] + dy[i] * dy[i] + dz[i] * dz[i]) * pixel_angle
        bay, storey = np.int32(u), np.int32(v)
        sharp = one / (footprint * per_bay + np.float32(0.02))
        across = (np.float32(0.27) - abs(u - np.float32(bay) - half)) * sharp + half
        upward = (np.float32(0.25) - abs(v - np.float32(storey) - np.float32(0.55))) * sharp + half
        across = across if across > zero else zero
        across = across if across < one else one
        upward = upward if upward > zero else zero
        upward = upward if upward < one else one
        window = across * upward if v < storeys else zero
        bright = np.float32(0.8) + half * _hash_share(bay, storey, tile)
        red[i] += (pane_r * bright - red[i]) * window
        green[i] += (pane_g * bright - green[i]) * window
        blue[i] += (pane_b * bright - blue[i]) * window


@njit(**FAST)
def _foliage_run(red, green, blue, depth, dx, dy, dz, ox, oy, z0, cos_yaw, sin_yaw, per_half, tile, pixel_angle):
    """Leaves on a run of pixels; o is the sensor in the box's frame, z0 its height above the box's middle."""
    one, four = np.float32(1.0), np.float32(4.0)
    for i in range(red.shape[0]):
        t = depth[i]
        px = ox + t * (cos_yaw * dx[i] + sin_yaw * dy[i])
        py = oy + t * (cos_yaw * dy[i] - sin_yaw * dx[i])
        z = z0 + t * dz[i]
        footprint = t * math.sqrt(dx[i] * dx[i] + dy[i] * dy[i] + dz[i] * dz[i]) * pixel_angle
        leaf = _hash_share(_floor(px * four) + _floor(z * four) * np.int32(17), _floor(py * four), tile)
        light = np.float32(0.8) + np.float32(0.25) * z * per_half
        light *= one + np.float32(0.55) * leaf / (one + np.float32(12.0) * footprint)
        red[i], green[i], blue[i] = red[i] * light, green[i] * light, blue[i] * light


@njit(**FAST)
def _glass_run(red, green, blue, depth, dz, z0, per_half, pane_r, pane_g, pane_b):
    """The sky in a run of pixels of a vehicle's glass, more of it higher up."""
    for i in range(red.shape[0]):
        height = (z0 + depth[i] * dz[i]) * per_half
        mirror = np.float32(0.20) + np.float32(0.125) * (height + np.float32(1.0))
        red[i] += (pane_r - red[i]) * mirror
        green[i] += (pane_g - green[i]) * mirror
        blue[i] += (pane_b - blue[i]) * mirror


@njit(**FAST)
def _curved_run(
    red, green, blue, depth, dx, dy, dz, ox, oy, z0, cos_yaw, sin_yaw, wx, wy, wz, sun_x, sun_y, sun_z, ambient, direct,
    veil_r, veil_g, veil_b,
):  # fmt: skip
    """Light on a run of pixels of a curved face; o, w (`normal_weights`) and sun are in the solid's frame."""
    zero = np.float32(0.0)
    for i in range(red.shape[0]):
        t = depth[i]
        nx = wx * (ox + t * (cos_yaw * dx[i] + sin_yaw * dy[i]))
        ny = wy * (oy + t * (cos_yaw * dy[i] - sin_yaw * dx[i]))
        nz = wz * (z0 + t * dz[i])
        per = np.float32(1.0) / math.sqrt(nx * nx + ny * ny + nz * nz)
        cosine = (nx * sun_x + ny * sun_y + nz * sun_z) * per
        up = nz * per
        sky = _ASIDE + up * ((_UP - _ASIDE) if up > zero else (_ASIDE - _DOWN))
        light = ambient * sky + direct * (cosine if cosine > zero else zero)
        red[i] = (red[i] - veil_r) * light + veil_r
        green[i] = (green[i] - veil_g) * light + veil_g
        blue[i] = (blue[i] - veil_b) * light + veil_b


@njit(**FAST)
def _face_run(
    hit, u0, u1, depth, dx, dy, dz, origin, boxes, attributes, faces, panes, sun, ambient, direct, pixel_angle, red, green,
    blue,
):  # fmt: skip
    """Paint pixels u0 to u1 of a row (1-D arrays), all of which see the same face."""
    face, k = np.uint32(hit), np.uint32(hit >> 2)
    r, g, b = faces[face, 0], faces[face, 1], faces[face, 2]
    for u in range(u0, u1):
        red[u], green[u], blue[u] = r, g, b
    material = attributes[k, MATERIAL]
    axis = hit & 3
    curved = (axis == CURVED) & (np.int32(boxes[k, SHAPE]) != _WEDGE) & (material != _LAMP_ON)
    if (not curved) & (material != _FACADE) & (material != _FOLIAGE) & (material != _GLASS):
        return
    cos_yaw, sin_yaw = boxes[k, COS], boxes[k, SIN]
    x, y, z = origin[0] - boxes[k, CX], origin[1] - boxes[k, CY], origin[2] - boxes[k, CZ]
    ox, oy = cos_yaw * x + sin_yaw * y, cos_yaw * y - sin_yaw * x
    tile = np.uint32(np.int32(panes[k, TILE])) * np.uint32(0x27D4EB2F)
    red, green, blue, t = red[u0:u1], green[u0:u1], blue[u0:u1], depth[u0:u1]
    dx, dy, dz = dx[u0:u1], dy[u0:u1], dz[u0:u1]
    if curved:
        wx, wy, wz = normal_weights(boxes[k])
        sun_x, sun_y = cos_yaw * sun[0] + sin_yaw * sun[1], cos_yaw * sun[1] - sin_yaw * sun[0]
        _curved_run(
            red, green, blue, t, dx, dy, dz, ox, oy, z, cos_yaw, sin_yaw, wx, wy, wz, sun_x, sun_y, sun[2], ambient, direct,
            panes[k, VEIL], panes[k, VEIL + 1], panes[k, VEIL + 2],
        )  # fmt: skip
    pane_r, pane_g, pane_b = panes[k, PANE], panes[k, PANE + 1], panes[k, PANE + 2]
    if material == _FACADE:
        if axis == 0:
            _facade_run(
                red, green, blue, t, dx, dy, dz, oy + boxes[k, HY], -sin_yaw, cos_yaw, z + boxes[k, HZ],
                panes[k, BAYS + 1], panes[k, STOREYS], tile, pane_r, pane_g, pane_b, pixel_angle,
            )  # fmt: skip
        elif axis == 1:
            _facade_run(
                red, green, blue, t, dx, dy, dz, ox + boxes[k, HX], cos_yaw, sin_yaw, z + boxes[k, HZ],
                panes[k, BAYS], panes[k, STOREYS], tile, pane_r, pane_g, pane_b, pixel_angle,
            )  # fmt: skip
    elif material == _FOLIAGE:
        per_half = np.float32(1.0) / boxes[k, HZ]
        _foliage_run(red, green, blue, t, dx, dy, dz, ox, oy, z, cos_yaw, sin_yaw, per_half, tile, pixel_angle)
    elif material == _GLASS:
        _glass_run(red, green, blue, t, dz, z, np.float32(1.0) / boxes[k, HZ], pane_r, pane_g, pane_b)


@njit(**FAST)
def _store_row(red, green, blue, words, image):
    """Cut off at 0 and 255 and store as bytes: whole words first, because three bytes at a time do not vectorise."""
    zero, top = np.float32(0.0), np.float32(255.0)
    for i in range(red.shape[0]):
        r, g, b = red[i], green[i], blue[i]
        r = r if r > zero else zero
        g = g if g > zero else zero
        b = b if b > zero else zero
        r = r if r < top else top
        g = g if g < top else top
        b = b if b < top else top
        words[i] = np.int32(r) | (np.int32(g) << np.int32(8)) | (np.int32(b) << np.int32(16))
    for i in range(red.shape[0]):
        word = np.uint32(words[i])
        image[i, 0] = np.uint8(word)
        image[i, 1] = np.uint8(word >> np.uint32(8))
        image[i, 2] = np.uint8(word >> np.uint32(16))


@njit(**FAST)
def shade_camera(
    depth, code, shade, dx, dy, dz, level, origin, pixel_angle, boxes, attributes, faces, panes, sun, ambient, direct,
    horizon, zenith, ego_x, ego_y, ego_cos, ego_sin, ground, noise, colors, cells, image, semantic, instance, labels,
):  # fmt: skip
    """Colour every pixel of one picture (and label it, if labels is set).

    level: (H, W) uint8, the ground texture's level at each pixel. noise: (256, 256) float32 in [-0.5, 0.5). shade: (H, W)
    uint8, share of the sun on the ground times 255. colors (COLOR_ROWS, W) float32 and cells (CELL_ROWS, W) int32 are
    scratch.
    """
    place = raster_place(ego_x, ego_y, ego_cos, ego_sin, ground[4], ground[5])
    open_sun = ambient + direct * sun[2]
    columns = depth.shape[1]
    red, green, blue = colors[0], colors[1], colors[2]
    for v in range(depth.shape[0]):
        codes, depths, row_dx, row_dy, row_dz = code[v], depth[v], dx[v], dy[v], dz[v]
        if labels:
            semantic[v, :] = _SKY_CLASS
            instance[v, :] = 0
        some_sky, some_ground = _row_contents(codes)
        if some_sky:
            _sky_row(row_dx, row_dy, row_dz, sun[0], sun[1], sun[2], horizon, zenith, red, green, blue)
        if some_ground:
            cells_row(depths, row_dx, row_dy, origin[0], origin[1], place, cells[0], cells[1])
            _ground_texels_row(
                codes, level[v], cells[0], cells[1], ground, noise, colors, semantic[v if labels else 0], labels
            )
            _ground_light_row(
                codes, depths, row_dx, row_dy, row_dz, shade[v], open_sun, horizon, colors[3], colors[4], colors[5],
                colors[6], red, green, blue,
            )  # fmt: skip
        u = 0
        while u < columns:
            hit = codes[u]
            end = u + 1
            if hit >= 0:
                while end < columns and codes[end] == hit:
                    end += 1
                _face_run(
                    hit, u, end, depths, row_dx, row_dy, row_dz, origin, boxes, attributes, faces, panes, sun, ambient,
                    direct, pixel_angle, red, green, blue,
                )  # fmt: skip
                if labels:
                    k = np.uint32(hit >> 2)
                    semantic[v, u:end] = np.uint8(attributes[k, SEMANTIC])
                    instance[v, u:end] = attributes[k, INSTANCE]
            u = end
        _store_row(red, green, blue, cells[0], image[v])
