"""Colours of what a camera's rays met: one pass over the picture after casting, row by row.

Knows hits, materials, the ground's texture and the light; knows nothing about traffic or environments. Sixteen neighbours are
sky, ground and each face that they show, one after another; where a face is not seen, what was worked out for it is dropped.
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
    INLINE,
    SHAPE,
    SIN,
    SKY,
    face_normal,
    normal_weights,
)
from sim.sensors.ground_texture import ask_for_texels, cell_places, ground_texels, raster_place
from sim.sensors.lamps import DARK, TAIL, beam_light, lamp_kind
from sim.sensors.light import AMBIENT, BEAM, CLOUD, DIRECT, HAZE, HORIZON, LAMP, LAMPS, SUN, WET, ZENITH
from sim.sensors.parts import INSTANCE, MATERIAL, RED, SEMANTIC
from sim.sensors.rain import gloss
from sim.sensors.sky import add_clouds, add_hills, sky_color
from sim.sensors.surfaces import (
    ASIDE,
    BALCONY,
    BAYS,
    DOWN,
    HIGH,
    LIT,
    PANE,
    PER_STOREY,
    SHOP,
    STOREYS,
    TILE,
    TRIM,
    UP,
    VEIL,
    WIDE,
    add_gloss,
    add_windows,
    leaf_light,
    light_curved,
)
from sim.simd import WIDTH, any_lane, blend, first_false, fma, greatest, lane, least, splat, to_float, to_int, where
from sim.simd_memory import load2, store2, store_rgb
from sim.solids import Material, Shape

_GLASS, _FACADE, _FOLIAGE, _PAINT = (
    int(m) for m in (Material.GLASS, Material.FACADE, Material.FOLIAGE, Material.PAINT)
)
_SIGN = int(Material.SIGN)
_BOX, _WEDGE = int(Shape.BOX), int(Shape.WEDGE)
_SKY_CLASS = np.uint8(SemanticClass.SKY)
# In thicker air than this, haze is worked out for every pixel instead of every box.
_THICK_PER_M = np.float32(1.0 / 600.0)
# Spreads the bits of a house's number.
_MIX = np.int32(0x27D4EB2F)


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


@njit(**INLINE)
def _sky_pixels(v, c, mask, dx, dy, dz, lengths, turns, heading, cos_yaw, sin_yaw, skyline, light):
    """Red, green and blue of the sky in sixteen pixels (row v, columns from c), as far as `mask` sees it."""
    x, y, z = load2(dx, v, c), load2(dy, v, c), load2(dz, v, c)
    per_length = np.float32(1.0) / load2(lengths, v, c)
    red, green, blue = sky_color(x, y, z, per_length, light)
    if light[CLOUD] > np.float32(0.02):
        red, green, blue = add_clouds(x, y, z, per_length, cos_yaw, sin_yaw, light, red, green, blue)
    if any_lane(mask & (z * z < np.float32(0.0025) * (x * x + y * y))):
        red, green, blue = add_hills(x, y, z, load2(turns, v, c), heading, skyline, light, red, green, blue)
    return red, green, blue


@njit(**INLINE)
def _ground_pixels(
    v, c, mask, depth, dx, dy, dz, lengths, level, shade, contact, shine, origin, place, ground, noise, light, span
):  # fmt: skip
    """Red, green, blue and class of the ground in sixteen pixels (row v, columns from c), as far as `mask` sees it.

    span: RGB that the sun, or lamps, add where shade is 255; where it rains, shine becomes `rain.gloss`.
    """
    one, per_level = np.float32(1.0), np.float32(1.0 / 255.0)
    t, x, y = load2(depth, v, c), load2(dx, v, c), load2(dy, v, c)
    column, row, across, along = cell_places(t, x, y, origin[0], origin[1], place)
    base_r, base_g, base_b, rough, kind, meaning = ground_texels(
        mask, load2(level, v, c), column, row, across, along, ground, noise
    )
    haze = haze_share(t * load2(lengths, v, c), light[HAZE])
    share = to_float(load2(shade, v, c)) * per_level
    dry = (one - np.float32(0.42) * light[WET]) * per_level
    level_here = rough * dry * to_float(load2(contact, v, c)) * (one - haze)
    red = fma(base_r * level_here, fma(share, span[0], light[AMBIENT]), light[HORIZON] * haze)
    green = fma(base_g * level_here, fma(share, span[1], light[AMBIENT + 1]), light[HORIZON + 1] * haze)
    blue = fma(base_b * level_here, fma(share, span[2], light[AMBIENT + 2]), light[HORIZON + 2] * haze)
    if light[BEAM] > np.float32(0.0):
        beam = rough * beam_light(t, x, y, load2(dz, v, c), origin, light[BEAM])
        red += base_r * beam
        green += base_g * beam * np.float32(0.97)
        blue += base_b * beam * np.float32(0.88)
    if light[WET] > np.float32(0.0):
        store2(shine, v, c, where(mask, gloss(kind, column, row, noise), load2(shine, v, c)))
    return red, green, blue, meaning


@njit(**INLINE)
def _face_pixels(
    hit, v, c, depth, dx, dy, dz, lengths, origin, boxes, attributes, faces, panes, light, pixel_angle
):  # fmt: skip
    """Red, green and blue of the face with that code in sixteen pixels (row v, columns from c); the others hold anything."""
    zero, one = np.float32(0.0), np.float32(1.0)
    k = hit >> 2
    box, pane = boxes[k], panes[k]
    material, axis = attributes[k, MATERIAL], hit & 3
    red, green, blue = splat(faces[hit, 0]), splat(faces[hit, 1]), splat(faces[hit, 2])
    if pane[LIT] > zero:
        return red, green, blue
    curved = (axis == CURVED) & (np.int32(box[SHAPE]) != _WEDGE)
    windows, leaves = (material == _FACADE) & (axis != 2), material == _FOLIAGE
    glossy, beams = (material == _GLASS) | (material == _PAINT), light[BEAM] > zero
    if not (curved | windows | leaves | glossy | beams):
        return red, green, blue
    cos_yaw, sin_yaw = box[COS], box[SIN]
    x, y, oz = origin[0] - box[CX], origin[1] - box[CY], origin[2] - box[CZ]
    ox, oy = cos_yaw * x + sin_yaw * y, cos_yaw * y - sin_yaw * x
    t, dir_x, dir_y, dir_z = load2(depth, v, c), load2(dx, v, c), load2(dy, v, c), load2(dz, v, c)
    px = fma(t, fma(dir_x, cos_yaw, sin_yaw * dir_y), ox)
    py = fma(t, fma(dir_y, cos_yaw, -sin_yaw * dir_x), oy)
    pz = fma(t, dir_z, oz)
    if curved:
        wx, wy, wz = normal_weights(box)
        sun_x, sun_y = cos_yaw * light[SUN] + sin_yaw * light[SUN + 1], cos_yaw * light[SUN + 1] - sin_yaw * light[SUN]
        red, green, blue = light_curved(
            red, green, blue, wx * px, wy * py, wz * pz, sun_x, sun_y, light[SUN + 2], light, pane
        )
    tile = np.int32(pane[TILE]) * _MIX
    if windows:
        per_bay = pane[BAYS + 1] if axis == 0 else pane[BAYS]
        along = (py + box[HY]) if axis == 0 else (px + box[HX])
        footprint = t * load2(lengths, v, c) * pixel_angle
        red, green, blue = add_windows(
            red, green, blue, along * per_bay, (pz + box[HZ]) * PER_STOREY, one / fma(footprint, per_bay, np.float32(0.006)),
            pane, tile, np.float32(0.4) * light[LAMPS],
        )  # fmt: skip
    elif leaves:
        bright = leaf_light(px, py, pz, t * load2(lengths, v, c) * pixel_angle, one / box[HZ], tile)
        red, green, blue = red * bright, green * bright, blue * bright
    elif glossy:
        glass = material == _GLASS
        red, green, blue = add_gloss(
            red, green, blue, pz * (one / box[HZ]), np.float32(0.20) if glass else np.float32(0.02),
            np.float32(0.125) if glass else np.float32(0.06), pane,
        )  # fmt: skip
    if beams:
        lit = one + beam_light(t, dir_x, dir_y, dir_z, origin, light[BEAM]) * (
            one / (np.float32(0.8) * light[AMBIENT + 1])
        )
        red, green, blue = red * lit, green * lit, blue * lit
    return red, green, blue


@njit(**INLINE)
def store_pixels(image, v, c, red, green, blue):
    """Cut sixteen pixels off at 0 and 255 and store them as bytes."""
    zero, top = np.float32(0.0), np.float32(255.0)
    red, green = to_int(least(greatest(red, zero), top)), to_int(least(greatest(green, zero), top))
    blue = to_int(least(greatest(blue, zero), top))
    store_rgb(image, v, c, red | (green << 8) | (blue << 16))


@njit(**FAST)
def shade_camera(
    depth, code, shade, contact, shine, dx, dy, dz, lengths, turns, level, origin, pixel_angle, boxes, attributes, faces, panes,
    light, skyline, ego_x, ego_y, ego_cos, ego_sin, ground, noise, image, semantic, instance, labels,
):  # fmt: skip
    """Colour every pixel of one picture (and label it, if labels is set).

    lengths: (H, W) float32, of the rays' directions. turns: (H, W) float32, azimuth in ego as a share of a turn. level: (H, W)
    uint8, the ground texture's level at each pixel. noise: of `grain_tiles`. shade: (H, W) uint8, share of the sun (by night,
    of the lamps) on the ground times 255; contact: (H, W) uint8, share of the sky; shine: (H, W) uint8, gets `rain.gloss` of a
    wet ground. light: (LIGHT_COLUMNS,).
    """
    place = raster_place(ego_x, ego_y, ego_cos, ego_sin, ground[4], ground[5])
    cos_yaw, sin_yaw = np.float32(ego_cos), np.float32(ego_sin)
    heading = np.float32(math.atan2(ego_sin, ego_cos) / (2 * math.pi))
    heading = heading + np.float32(1.0) if heading < np.float32(0.0) else heading
    span = (light[LAMP], light[LAMP + 1], light[LAMP + 2])
    if light[DIRECT] > np.float32(0.0):
        high = light[SUN + 2]
        span = (light[DIRECT] * high, light[DIRECT + 1] * high, light[DIRECT + 2] * high)
    thick = light[HAZE] > _THICK_PER_M
    columns = depth.shape[1]
    last, below = columns - WIDTH, depth.shape[0] - 1
    for v in range(depth.shape[0]):
        for u in range(0, columns, WIDTH):
            c = min(u, last)
            if v < below:
                later = load2(code, v + 1, c) == GROUND
                if any_lane(later):
                    column, row, _, _ = cell_places(
                        load2(depth, v + 1, c), load2(dx, v + 1, c), load2(dy, v + 1, c), origin[0], origin[1], place
                    )
                    ask_for_texels(later, load2(level, v + 1, c), column, row, ground)
            codes = load2(code, v, c)
            sky, earth, solid = codes == SKY, codes == GROUND, codes >= 0
            red, green, blue = splat(np.float32(0.0)), splat(np.float32(0.0)), splat(np.float32(0.0))
            kinds, owners = splat(np.int32(_SKY_CLASS)), splat(np.int32(0))
            if any_lane(sky):
                red, green, blue = _sky_pixels(
                    v, c, sky, dx, dy, dz, lengths, turns, heading, cos_yaw, sin_yaw, skyline, light
                )
            if any_lane(earth):
                r, g, b, kinds = _ground_pixels(
                    v, c, earth, depth, dx, dy, dz, lengths, level, shade, contact, shine, origin, place, ground, noise, light,
                    span,
                )  # fmt: skip
                red, green, blue = where(earth, r, red), where(earth, g, green), where(earth, b, blue)
                kinds = where(earth, kinds, np.int32(_SKY_CLASS))
            todo = solid
            while any_lane(todo):
                hit = lane(codes, first_false(~todo))
                own = codes == hit
                todo = todo & ~own
                r, g, b = _face_pixels(
                    hit, v, c, depth, dx, dy, dz, lengths, origin, boxes, attributes, faces, panes, light, pixel_angle
                )
                red, green, blue = where(own, r, red), where(own, g, green), where(own, b, blue)
                if labels:
                    kinds = where(own, attributes[hit >> 2, SEMANTIC], kinds)
                    owners = where(own, attributes[hit >> 2, INSTANCE], owners)
            if labels:
                store2(semantic, v, c, kinds)
                store2(instance, v, c, owners)
            if thick and any_lane(solid):
                far = load2(depth, v, c) * load2(lengths, v, c)
                haze = where(solid, haze_share(far, light[HAZE]), np.float32(0.0))
                red, green = blend(red, light[HORIZON], haze), blend(green, light[HORIZON + 1], haze)
                blue = blend(blue, light[HORIZON + 2], haze)
            store_pixels(image, v, c, red, green, blue)
