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
    LANES,
    SHAPE,
    SIN,
    SKY,
    face_normal,
    normal_weights,
)
from sim.sensors.ground_texture import cell_places_row, ground_texels_row, raster_place
from sim.sensors.lamps import DARK, TAIL, add_face_beam_run, add_ground_beam_row, beam_row, lamp_kind
from sim.sensors.light import AMBIENT, BEAM, CLOUD, DIRECT, HAZE, HORIZON, LAMP, LAMPS, SUN, WET, ZENITH
from sim.sensors.parts import INSTANCE, MATERIAL, RED, SEMANTIC
from sim.sensors.rain import gloss_row
from sim.sensors.sky import clouds_row, hills_row, sky_row
from sim.sensors.surfaces import (
    ASIDE,
    DOWN,
    PER_STOREY,
    UP,
    curved_run,
    facade_run,
    foliage_run,
    gloss_run,
)
from sim.solids import Material, Shape

_GLASS, _FACADE, _FOLIAGE, _PAINT = (
    int(m) for m in (Material.GLASS, Material.FACADE, Material.FOLIAGE, Material.PAINT)
)
_SIGN = int(Material.SIGN)
_BOX, _WEDGE = int(Shape.BOX), int(Shape.WEDGE)
_SKY_CLASS = np.uint8(SemanticClass.SKY)
# In thicker air than this, haze is worked out for every pixel instead of every box.
_THICK_PER_M = np.float32(1.0 / 600.0)
# Columns of a box's panes: what is mirrored in its glass (RGB), window bays per metre along x and y, whole storeys, a number
# that tells its windows or leaves from those of others, the haze before it (RGB), how wide and high its windows are, whether
# it has shops and balconies, how bright its window frames are, and 1 where it is a lamp that shines.
PANE, BAYS, STOREYS, TILE, VEIL, WIDE, HIGH, SHOP, BALCONY, TRIM, LIT = 0, 3, 5, 6, 7, 10, 11, 12, 13, 14, 15
PANE_COLUMNS = 16
# Rows of scratch: float32 red, green, blue, then red, green, blue and texture of the ground, then the ego's own low beam,
# then where in its cell of the ground a ray ends; int32 that cell's column and row.
COLOR_ROWS, CELL_ROWS = 10, 2


@njit(**FAST)
def haze_share(distance, per_m):
    """Share of the light that haze of that extinction replaces, about 1 - exp(-distance * per_m)."""
    x = distance * per_m
    x *= np.float32(1.0) + x * (np.float32(0.5) + x * np.float32(1.0 / 6.0))
    return x / (np.float32(1.0) + x)


@njit(**FAST)
def _plan_facade(box, pane, tile):
    """How the windows of a house are: of numbers that belong to it alone."""
    one = np.float32(1.0)
    for side in range(2):
        width = np.float32(2.0) * box[HX + side]
        bays = max(
            one, np.float32(math.floor(width / (np.float32(2.5) + np.float32(0.25) * np.float32((tile >> 3) & 3))))
        )
        pane[BAYS + side] = bays / width
    pane[STOREYS] = np.float32(math.floor(np.float32(2.0) * box[HZ] * PER_STOREY + np.float32(0.1)))
    pane[WIDE] = np.float32(0.22) + np.float32(0.05) * np.float32((tile >> 5) & 3)
    pane[HIGH] = np.float32(0.23) + np.float32(0.03) * np.float32((tile >> 7) & 3)
    pane[SHOP] = one if (tile >> 9) & 3 == 0 else np.float32(0.0)
    pane[BALCONY] = one if ((tile >> 11) & 3 == 0) & (pane[STOREYS] > np.float32(2.0)) else np.float32(0.0)
    pane[TRIM] = np.float32(0.62) if (tile >> 13) & 1 == 0 else np.float32(1.16)


@njit(**FAST)
def light_faces(boxes, attributes, drawn, count, origin, light, faces, panes):
    """Colour (float32 RGB) of the faces that the sensor can see of boxes drawn[:count]; faces: (4 * MAX_BOXES, 3).

    A curved face gets its colour in full light: each pixel has a normal of its own. Haze is that of the box's nearest point,
    so that a pixel need not work it out, except where it is thick. panes: (MAX_BOXES, PANE_COLUMNS).
    """
    one, zero = np.float32(1.0), np.float32(0.0)
    thick = light[HAZE] > _THICK_PER_M
    sun_x, sun_y, sun_z = light[SUN], light[SUN + 1], light[SUN + 2]
    for place in range(count):
        k = drawn[place]
        box, attribute, pane = boxes[k], attributes[k], panes[k]
        facade = attribute[MATERIAL] == _FACADE
        # Knuth's multiplicative hash: neighbours in number become unlike.
        tile = (np.uint32(attribute[INSTANCE]) * np.uint32(2654435761)) >> np.uint32(12)
        pane[TILE] = np.float32(np.int32(tile))
        if facade:
            _plan_facade(box, pane, np.int32(tile))
        x, y, z = origin[0] - box[CX], origin[1] - box[CY], origin[2] - box[CZ]
        away = max(math.sqrt(x * x + y * y) - max(box[HX], box[HY]), zero)
        haze = zero if thick else haze_share(away, light[HAZE])
        clear = one - haze
        for c in range(3):
            mirrored = light[ZENITH + c]
            if facade:
                mirrored = np.float32(80.0) * light[AMBIENT + c] + np.float32(0.22) * mirrored
            pane[VEIL + c] = light[HORIZON + c] * haze
            pane[PANE + c] = mirrored * clear + pane[VEIL + c]
        lamp = lamp_kind(attribute, light[LAMPS])
        pane[LIT] = zero if lamp == DARK else one
        shine = np.float32(1.6) if lamp == TAIL else np.float32(1.25)
        # At night signs throw the headlights back.
        gain = np.float32(1.0) + (np.float32(1.5) * light[BEAM] if attribute[MATERIAL] == _SIGN else zero)
        side_x = one if box[COS] * x + box[SIN] * y > 0 else -one
        side_y = one if box[COS] * y - box[SIN] * x > 0 else -one
        side_z = one if z > 0 else -one
        light_x = side_x * (box[COS] * sun_x + box[SIN] * sun_y)
        light_y = side_y * (box[COS] * sun_y - box[SIN] * sun_x)
        for axis in range(3):
            cosine = light_x if axis == 0 else (light_y if axis == 1 else side_z * sun_z)
            cosine = max(cosine, zero)
            sky = ASIDE if axis < 2 else (UP if side_z > 0 else DOWN)
            for c in range(3):
                level = shine if lamp != DARK else (light[AMBIENT + c] * sky + light[DIRECT + c] * cosine) * gain
                faces[4 * k + axis, c] = np.float32(attribute[RED + c]) * level * clear + pane[VEIL + c]
        shape = np.int32(box[SHAPE])
        if shape != _BOX:
            cosine, sky = zero, one
            if shape == _WEDGE:
                nx, ny, nz = face_normal(box, CURVED)
                cosine = max(nx * sun_x + ny * sun_y + nz * sun_z, zero)
                sky = ASIDE + (UP - ASIDE) * nz
            for c in range(3):
                level = light[AMBIENT + c] * sky + light[DIRECT + c] * cosine if shape == _WEDGE else one
                level = shine if lamp != DARK else level
                faces[4 * k + CURVED, c] = np.float32(attribute[RED + c]) * level * clear + pane[VEIL + c]


@njit(**FAST)
def _span_of(code, wanted):
    """Columns (first, end) that hold all of a code that is there, widened to whole vectors."""
    first, last = 0, code.shape[0] - 1
    while code[first] != wanted:
        first += 1
    while code[last] != wanted:
        last -= 1
    return (first // LANES) * LANES, min(code.shape[0], (last // LANES + 1) * LANES)


@njit(**FAST)
def _row_contents(code, dx, dy, dz):
    """Columns (first, end) that hold all sky of a row, the same for its ground, in whole vectors; and whether it looks so low
    that hills may hide its sky."""
    columns = code.shape[0]
    sky, ground, low = 0, 0, 0
    for i in range(columns):
        sky += 1 if code[i] == SKY else 0
        ground += 1 if code[i] == GROUND else 0
        low += 1 if dz[i] * dz[i] < np.float32(0.0025) * (dx[i] * dx[i] + dy[i] * dy[i]) else 0
    sky_0, sky_1, ground_0, ground_1 = 0, 0, 0, 0
    if sky > 0:
        sky_0, sky_1 = _span_of(code, SKY)
    if ground > 0:
        ground_0, ground_1 = _span_of(code, GROUND)
    return sky_0, sky_1, ground_0, ground_1, low > 0


@njit(**FAST)
def _ground_light_row(
    code,
    depth,
    dx,
    dy,
    dz,
    shade,
    contact,
    light,
    span_r,
    span_g,
    span_b,
    base_r,
    base_g,
    base_b,
    texture,
    red,
    green,
    blue,
):
    """Light and haze on the ground pixels of a row; shade: uint8, 255 where the sun (or a lamp) shines with full span; contact:
    uint8, 255 where nothing stands so near that it hides the sky."""
    one, per_level = np.float32(1.0), np.float32(1.0 / 255.0)
    r, g, b = light[HORIZON], light[HORIZON + 1], light[HORIZON + 2]
    ambient_r, ambient_g, ambient_b = light[AMBIENT], light[AMBIENT + 1], light[AMBIENT + 2]
    dry = (one - np.float32(0.42) * light[WET]) * per_level
    per_m = light[HAZE]
    for i in range(code.shape[0]):
        distance = depth[i] * math.sqrt(dx[i] * dx[i] + dy[i] * dy[i] + dz[i] * dz[i])
        haze = haze_share(distance, per_m)
        share = np.float32(np.int32(shade[i])) * per_level
        level = (one + texture[i]) * dry * np.float32(np.int32(contact[i])) * (one - haze)
        ground = code[i] == GROUND
        red[i] = base_r[i] * level * (ambient_r + span_r * share) + r * haze if ground else red[i]
        green[i] = base_g[i] * level * (ambient_g + span_g * share) + g * haze if ground else green[i]
        blue[i] = base_b[i] * level * (ambient_b + span_b * share) + b * haze if ground else blue[i]


@njit(**FAST)
def _thick_haze_row(code, depth, dx, dy, dz, light, red, green, blue):
    """Haze before the solids of a row, pixel by pixel."""
    r, g, b, per_m = light[HORIZON], light[HORIZON + 1], light[HORIZON + 2], light[HAZE]
    for i in range(code.shape[0]):
        distance = depth[i] * math.sqrt(dx[i] * dx[i] + dy[i] * dy[i] + dz[i] * dz[i])
        haze = haze_share(distance, per_m)
        haze = haze if code[i] >= 0 else np.float32(0.0)
        red[i] += (r - red[i]) * haze
        green[i] += (g - green[i]) * haze
        blue[i] += (b - blue[i]) * haze


@njit(**FAST)
def _face_run(
    hit, u0, u1, depth, dx, dy, dz, origin, boxes, attributes, faces, panes, light, pixel_angle, beam, spare, red, green, blue
):  # fmt: skip
    """Paint pixels u0 to u1 of a row (1-D arrays), all of which see the same face. spare: three rows of scratch.

    Runs are short: a texture is worked out beside the picture, for whole vectors of pixels, and the run is taken from there.
    """
    face, k = np.uint32(hit), np.uint32(hit >> 2)
    r, g, b = faces[face, 0], faces[face, 1], faces[face, 2]
    material = attributes[k, MATERIAL]
    axis = hit & 3
    curved = (axis == CURVED) & (np.int32(boxes[k, SHAPE]) != _WEDGE)
    textured = curved | (material == _FACADE) | (material == _FOLIAGE) | (material == _GLASS) | (material == _PAINT)
    if textured & (panes[k, LIT] <= np.float32(0.0)):
        a0, a1 = (u0 // LANES) * LANES, min(red.shape[0], -(-u1 // LANES) * LANES)
        spare_r, spare_g, spare_b = spare[0, a0:a1], spare[1, a0:a1], spare[2, a0:a1]
        for i in range(a1 - a0):
            spare_r[i], spare_g[i], spare_b[i] = r, g, b
        _texture_run(
            axis, curved, material, depth[a0:a1], dx[a0:a1], dy[a0:a1], dz[a0:a1], origin, boxes[k], panes[k], light,
            pixel_angle, spare_r, spare_g, spare_b,
        )  # fmt: skip
        for u in range(u0, u1):
            red[u], green[u], blue[u] = spare[0, u], spare[1, u], spare[2, u]
    else:
        for u in range(u0, u1):
            red[u], green[u], blue[u] = r, g, b
    if (light[BEAM] > np.float32(0.0)) & (panes[k, LIT] <= np.float32(0.0)):
        per_ambient = np.float32(1.0) / (np.float32(0.8) * light[AMBIENT + 1])
        add_face_beam_run(beam[u0:u1], per_ambient, red[u0:u1], green[u0:u1], blue[u0:u1])


@njit(**FAST)
def _texture_run(axis, curved, material, t, dx, dy, dz, origin, box, pane, light, pixel_angle, red, green, blue):
    """What makes the material of a run of pixels more than one colour."""
    cos_yaw, sin_yaw = box[COS], box[SIN]
    x, y, z = origin[0] - box[CX], origin[1] - box[CY], origin[2] - box[CZ]
    ox, oy = cos_yaw * x + sin_yaw * y, cos_yaw * y - sin_yaw * x
    tile = np.uint32(np.int32(pane[TILE])) * np.uint32(0x27D4EB2F)
    per_half = np.float32(1.0) / box[HZ]
    if curved:
        wx, wy, wz = normal_weights(box)
        sun_x, sun_y = cos_yaw * light[SUN] + sin_yaw * light[SUN + 1], cos_yaw * light[SUN + 1] - sin_yaw * light[SUN]
        curved_run(
            red, green, blue, t, dx, dy, dz, ox, oy, z, cos_yaw, sin_yaw, wx, wy, wz, sun_x, sun_y, light[SUN + 2],
            (light[AMBIENT], light[AMBIENT + 1], light[AMBIENT + 2]), (light[DIRECT], light[DIRECT + 1], light[DIRECT + 2]),
            (pane[VEIL], pane[VEIL + 1], pane[VEIL + 2]),
        )  # fmt: skip
    pane_r, pane_g, pane_b = pane[PANE], pane[PANE + 1], pane[PANE + 2]
    if material == _FACADE:
        if axis == 2:
            return
        along, per_x, per_y, per_bay = ox + box[HX], cos_yaw, sin_yaw, pane[BAYS]
        if axis == 0:
            along, per_x, per_y, per_bay = oy + box[HY], -sin_yaw, cos_yaw, pane[BAYS + 1]
        facade_run(
            red, green, blue, t, dx, dy, dz, along, per_x, per_y, z + box[HZ], per_bay, pane[STOREYS], tile, pane_r, pane_g,
            pane_b, pane[WIDE], pane[HIGH], pane[SHOP], pane[BALCONY], pane[TRIM], np.float32(0.4) * light[LAMPS], pixel_angle,
        )  # fmt: skip
    elif material == _FOLIAGE:
        foliage_run(red, green, blue, t, dx, dy, dz, ox, oy, z, cos_yaw, sin_yaw, per_half, tile, pixel_angle)
    elif material == _GLASS:
        gloss_run(red, green, blue, t, dz, z, per_half, np.float32(0.20), np.float32(0.125), pane_r, pane_g, pane_b)
    elif material == _PAINT:
        gloss_run(red, green, blue, t, dz, z, per_half, np.float32(0.02), np.float32(0.06), pane_r, pane_g, pane_b)


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
    depth, code, shade, contact, dx, dy, dz, turns, level, origin, pixel_angle, boxes, attributes, faces, panes, light,
    skyline, ego_x, ego_y, ego_cos, ego_sin, ground, noise, colors, cells, image, semantic, instance, labels,
):  # fmt: skip
    """Colour every pixel of one picture (and label it, if labels is set).

    turns: (H, W) float32, azimuth in ego as a share of a turn. level: (H, W) uint8, the ground texture's level at each pixel.
    noise: of `grain_tiles`. shade: (H, W) uint8, share of the sun (by night, of the lamps) on the ground times 255, on a wet
    road afterwards `gloss_row`; contact: (H, W) uint8, share of the sky. light: (LIGHT_COLUMNS,). colors (COLOR_ROWS, W)
    float32 and cells (CELL_ROWS, W) int32 are scratch.
    """
    place = raster_place(ego_x, ego_y, ego_cos, ego_sin, ground[5], ground[6])
    cos_yaw, sin_yaw = np.float32(ego_cos), np.float32(ego_sin)
    heading = np.float32(math.atan2(ego_sin, ego_cos) / (2 * math.pi))
    heading = heading + np.float32(1.0) if heading < np.float32(0.0) else heading
    night = light[DIRECT] <= np.float32(0.0)
    span_r, span_g, span_b = light[LAMP], light[LAMP + 1], light[LAMP + 2]
    if not night:
        span_r, span_g, span_b = (
            light[DIRECT] * light[SUN + 2], light[DIRECT + 1] * light[SUN + 2], light[DIRECT + 2] * light[SUN + 2],
        )  # fmt: skip
    beams, thick, wet = light[BEAM] > np.float32(0.0), light[HAZE] > _THICK_PER_M, light[WET] > np.float32(0.0)
    columns = depth.shape[1]
    red, green, blue = colors[0], colors[1], colors[2]
    for v in range(depth.shape[0]):
        codes, depths, row_dx, row_dy, row_dz = code[v], depth[v], dx[v], dy[v], dz[v]
        if labels:
            semantic[v, :] = _SKY_CLASS
            instance[v, :] = 0
        s0, s1, g0, g1, low = _row_contents(codes, row_dx, row_dy, row_dz)
        if s1 > s0:
            sx, sy, sz, sr, sg, sb = row_dx[s0:s1], row_dy[s0:s1], row_dz[s0:s1], red[s0:s1], green[s0:s1], blue[s0:s1]
            sky_row(sx, sy, sz, light, sr, sg, sb)
            if light[CLOUD] > np.float32(0.02):
                clouds_row(sx, sy, sz, cos_yaw, sin_yaw, light, sr, sg, sb)
            if low:
                hills_row(sx, sy, sz, turns[v, s0:s1], heading, skyline, light, sr, sg, sb)
        if beams:
            beam_row(depths, row_dx, row_dy, row_dz, origin, light[BEAM], colors[7])
        if g1 > g0:
            gx, gy, gz = row_dx[g0:g1], row_dy[g0:g1], row_dz[g0:g1]
            cell_places_row(
                depths[g0:g1], gx, gy, origin[0], origin[1], place, cells[0, g0:g1], cells[1, g0:g1], colors[8, g0:g1],
                colors[9, g0:g1],
            )  # fmt: skip
            ground_texels_row(
                codes[g0:g1], level[v, g0:g1], cells[0, g0:g1], cells[1, g0:g1], colors[8, g0:g1], colors[9, g0:g1], ground,
                noise, colors[:, g0:g1], semantic[v if labels else 0, g0:g1], labels,
            )  # fmt: skip
            _ground_light_row(
                codes[g0:g1], depths[g0:g1], gx, gy, gz, shade[v, g0:g1], contact[v, g0:g1], light, span_r, span_g, span_b,
                colors[3, g0:g1], colors[4, g0:g1], colors[5, g0:g1], colors[6, g0:g1], red[g0:g1], green[g0:g1],
                blue[g0:g1],
            )  # fmt: skip
            if wet:
                gloss_row(codes, cells[0], cells[1], ground[3], noise, shade[v])
            if beams:
                add_ground_beam_row(codes, colors[7], colors[3], colors[4], colors[5], colors[6], red, green, blue)
        u = 0
        while u < columns:
            hit = codes[u]
            end = u + 1
            if hit >= 0:
                while end < columns and codes[end] == hit:
                    end += 1
                _face_run(
                    hit, u, end, depths, row_dx, row_dy, row_dz, origin, boxes, attributes, faces, panes, light, pixel_angle,
                    colors[7], colors[3:6], red, green, blue,
                )  # fmt: skip
                if labels:
                    k = np.uint32(hit >> 2)
                    semantic[v, u:end] = np.uint8(attributes[k, SEMANTIC])
                    instance[v, u:end] = attributes[k, INSTANCE]
            u = end
        if thick:
            _thick_haze_row(codes, depths, row_dx, row_dy, row_dz, light, red, green, blue)
        _store_row(red, green, blue, cells[0], image[v])
