"""The sky in sixteen directions at once: gradient, sun, clouds, and the hills on the horizon.

Knows directions and the light; knows nothing about solids or the ground.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.sensors.cast import INLINE
from sim.sensors.light import AMBIENT, CLOUD, DIRECT, GLOW, HAZE, HORIZON, SUN, ZENITH
from sim.simd import any_lane, blend, floor, fma, greatest, least, splat, sqrt, to_float, to_int, where
from sim.simd_memory import gather

SKYLINE_PLACES = 2048


def skyline() -> NDArray[np.float32]:
    """(SKYLINE_PLACES,) float32: tangent of the elevation of far hills and trees, by azimuth counter-clockwise from east."""
    rng = np.random.default_rng(11)
    turn = 2 * np.pi * np.arange(SKYLINE_PLACES) / SKYLINE_PLACES
    hills = sum(
        rng.uniform(0.5, 1.0) / k**0.8 * np.sin(k * turn + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5, 8, 13, 21, 34)
    )
    trees = np.convolve(np.tile(rng.random(SKYLINE_PLACES), 3), [0.2, 0.6, 0.2], "same")[
        SKYLINE_PLACES : 2 * SKYLINE_PLACES
    ]
    return (0.017 + 0.007 * np.asarray(hills) + 0.0035 * trees).clip(0.004).astype(np.float32)


@njit(**INLINE)
def _wave(t):
    """About sin(2 pi t), of parabolas."""
    t = t - floor(t + np.float32(0.5))
    return t * fma(abs(t), np.float32(-16.0), np.float32(8.0))


@njit(**INLINE)
def sky_color(x, y, z, per_length, light):
    """The sky in sixteen directions (x, y, z), per_length being one over their length: brighter towards the horizon and
    around the sun. Red, green and blue."""
    one, zero = np.float32(1.0), np.float32(0.0)
    glow = greatest(fma(x, light[SUN], fma(y, light[SUN + 1], z * light[SUN + 2])) * per_length, zero)
    glow *= glow
    glow *= glow
    wide = glow
    glow *= glow
    up = greatest(np.float32(1.7) * z * per_length, zero)
    low = greatest(one - up, zero)
    near_sun = fma(np.float32(0.6) * wide, low, glow)
    up = sqrt(least(up, one))
    tight = splat(zero)
    if any_lane(glow > np.float32(0.6)) & (light[DIRECT] > np.float32(0.2)):
        # Away from the sun nothing is left of a high power, and numbers that small are very slow.
        tight = where(glow > np.float32(0.6), glow * glow, zero)
        for _ in range(6):
            tight *= tight
        tight *= np.float32(900.0)
    red = fma(up, light[ZENITH] - light[HORIZON], fma(near_sun, light[GLOW], tight + light[HORIZON]))
    green = fma(up, light[ZENITH + 1] - light[HORIZON + 1], fma(near_sun, light[GLOW + 1], tight + light[HORIZON + 1]))
    blue = fma(up, light[ZENITH + 2] - light[HORIZON + 2], fma(near_sun, light[GLOW + 2], tight + light[HORIZON + 2]))
    return red, green, blue


@njit(**INLINE)
def add_clouds(x, y, z, per_length, cos_yaw, sin_yaw, light, red, green, blue):
    """Clouds on a plane far above; they stay in the world when the ego turns."""
    one, zero, half = np.float32(1.0), np.float32(0.0), np.float32(0.5)
    cover = light[CLOUD]
    grey = np.float32(0.72) + np.float32(0.1) * (one - cover)
    edge = np.float32(0.62) - np.float32(0.95) * cover
    up = greatest(z * per_length, zero)
    per = per_length / (up + np.float32(0.09))
    x, y = fma(x, cos_yaw, -sin_yaw * y) * per, fma(x, sin_yaw, cos_yaw * y) * per
    p, q = _wave(fma(y, np.float32(0.17), np.float32(0.1))), _wave(fma(x, np.float32(0.13), np.float32(0.4)))
    a = _wave(fma(x, np.float32(0.21), np.float32(0.16) * p))
    b = _wave(fma(y, np.float32(0.26), fma(x, np.float32(0.05), np.float32(0.18) * q)))
    c = _wave(fma(x, np.float32(0.47), fma(y, np.float32(0.31), np.float32(0.22) * a)))
    d = _wave(fma(y, np.float32(0.62), fma(x, np.float32(-0.38), np.float32(0.25) * b)))
    f = _wave(fma(x, np.float32(1.31), fma(y, np.float32(0.77), np.float32(0.3) * d)))
    g = _wave(fma(y, np.float32(1.57), fma(x, np.float32(-1.05), np.float32(0.3) * c)))
    thick = fma(
        np.float32(0.45) * a, b, fma(np.float32(0.3) * c, d, fma(f + g, np.float32(0.12), np.float32(0.2) * p * q))
    )
    share = least(greatest((thick - edge) * np.float32(1.6), zero), one)
    share = share * share * fma(share, np.float32(-2.0), np.float32(3.0))
    light_here = fma(share, grey - one, one)
    share *= least(up * np.float32(7.0), one) * np.float32(0.85)
    white_r = np.float32(150.0) * light[AMBIENT] + np.float32(190.0) * light[DIRECT] + half * light[HORIZON]
    white_g = np.float32(150.0) * light[AMBIENT + 1] + np.float32(190.0) * light[DIRECT + 1] + half * light[HORIZON + 1]
    white_b = np.float32(150.0) * light[AMBIENT + 2] + np.float32(190.0) * light[DIRECT + 2] + half * light[HORIZON + 2]
    red, green = blend(red, white_r * light_here, share), blend(green, white_g * light_here, share)
    blue = blend(blue, white_b * light_here, share)
    return red, green, blue


@njit(**INLINE)
def add_hills(x, y, z, turns, heading, skyline, light, red, green, blue):
    """Hills and trees far away, in directions just above the horizon. turns: azimuth in ego as a share of a turn in [0, 1);
    heading: that of the ego, the same way."""
    one, zero = np.float32(1.0), np.float32(0.0)
    places = np.int32(skyline.shape[0])
    away = sqrt(x * x + y * y)
    place = (turns + heading) * np.float32(places)
    first = to_int(place)
    left = gather(skyline, first & (places - np.int32(1)))
    right = gather(skyline, (first + np.int32(1)) & (places - np.int32(1)))
    height = (left + (right - left) * (place - to_float(first))) * away
    share = least(greatest((height - z) * np.float32(260.0) / away, zero), one)
    share *= one / (one + np.float32(1000.0) * light[HAZE])
    shine = light[AMBIENT + 1] + np.float32(0.4) * light[DIRECT + 1]
    red, green = blend(red, np.float32(58.0) * shine, share), blend(green, np.float32(78.0) * shine, share)
    blue = blend(blue, np.float32(66.0) * shine, share)
    return red, green, blue
