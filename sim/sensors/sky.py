"""The sky of a row of rays: gradient, sun, clouds, and the hills on the horizon.

Knows directions and the light; knows nothing about solids or the ground.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.sensors.cast import FAST
from sim.sensors.light import AMBIENT, CLOUD, DIRECT, GLOW, HAZE, HORIZON, SUN, ZENITH

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


@njit(**FAST)
def _wave(t):
    """About sin(2 pi t), of parabolas; vectorises."""
    half, eight = np.float32(0.5), np.float32(8.0)
    whole = np.int32(t)
    t -= np.float32(whole)
    t = t - np.float32(1.0) if t > half else t
    t = t + np.float32(1.0) if t < -half else t
    return t * (eight - np.float32(16.0) * abs(t))


@njit(**FAST)
def sky_row(dx, dy, dz, light, red, green, blue):
    """The sky in the directions of a row: brighter towards the horizon and around the sun."""
    one, zero = np.float32(1.0), np.float32(0.0)
    sx, sy, sz = light[SUN], light[SUN + 1], light[SUN + 2]
    r, g, b = light[HORIZON], light[HORIZON + 1], light[HORIZON + 2]
    up_r, up_g, up_b = light[ZENITH] - r, light[ZENITH + 1] - g, light[ZENITH + 2] - b
    glow_r, glow_g, glow_b = light[GLOW], light[GLOW + 1], light[GLOW + 2]
    disc = np.float32(900.0) if light[DIRECT] > np.float32(0.2) else zero
    for i in range(dx.shape[0]):
        per_length = one / math.sqrt(dx[i] * dx[i] + dy[i] * dy[i] + dz[i] * dz[i])
        glow = (dx[i] * sx + dy[i] * sy + dz[i] * sz) * per_length
        glow = glow if glow > zero else zero
        glow *= glow
        glow *= glow
        wide = glow
        glow *= glow
        # Away from the sun nothing is left of a high power, and numbers that small are very slow.
        tight = glow * glow if glow > np.float32(0.6) else zero
        tight *= tight
        tight *= tight
        tight *= tight
        tight *= tight
        tight *= tight
        tight *= tight
        tight *= disc
        up = np.float32(1.7) * dz[i] * per_length
        up = up if up > zero else zero
        low = one - up if up < one else zero
        up = math.sqrt(up if up < one else one)
        glow += np.float32(0.6) * wide * low
        red[i] = r + up_r * up + glow_r * glow + tight
        green[i] = g + up_g * up + glow_g * glow + tight
        blue[i] = b + up_b * up + glow_b * glow + tight


@njit(**FAST)
def clouds_row(dx, dy, dz, cos_yaw, sin_yaw, light, red, green, blue):
    """Clouds on a plane far above; they stay in the world when the ego turns."""
    one, zero, half = np.float32(1.0), np.float32(0.0), np.float32(0.5)
    cover = light[CLOUD]
    night = light[AMBIENT]
    white_r = np.float32(150.0) * night + np.float32(190.0) * light[DIRECT] + half * light[HORIZON]
    white_g = np.float32(150.0) * light[AMBIENT + 1] + np.float32(190.0) * light[DIRECT + 1] + half * light[HORIZON + 1]
    white_b = np.float32(150.0) * light[AMBIENT + 2] + np.float32(190.0) * light[DIRECT + 2] + half * light[HORIZON + 2]
    grey = np.float32(0.72) + np.float32(0.1) * (one - cover)
    edge = np.float32(0.62) - np.float32(0.95) * cover
    for i in range(dx.shape[0]):
        per_length = one / math.sqrt(dx[i] * dx[i] + dy[i] * dy[i] + dz[i] * dz[i])
        up = dz[i] * per_length
        up = up if up > zero else zero
        per = per_length / (up + np.float32(0.09))
        x, y = (cos_yaw * dx[i] - sin_yaw * dy[i]) * per, (sin_yaw * dx[i] + cos_yaw * dy[i]) * per
        p, q = _wave(np.float32(0.17) * y + np.float32(0.1)), _wave(np.float32(0.13) * x + np.float32(0.4))
        a = _wave(np.float32(0.21) * x + np.float32(0.16) * p)
        b = _wave(np.float32(0.26) * y + np.float32(0.05) * x + np.float32(0.18) * q)
        c = _wave(np.float32(0.47) * x + np.float32(0.31) * y + np.float32(0.22) * a)
        d = _wave(np.float32(0.62) * y - np.float32(0.38) * x + np.float32(0.25) * b)
        f = _wave(np.float32(1.31) * x + np.float32(0.77) * y + np.float32(0.3) * d)
        g = _wave(np.float32(1.57) * y - np.float32(1.05) * x + np.float32(0.3) * c)
        thick = (
            np.float32(0.45) * a * b + np.float32(0.3) * c * d + np.float32(0.12) * (f + g) + np.float32(0.2) * p * q
        )
        share = (thick - edge) * np.float32(1.6)
        share = share if share > zero else zero
        share = share if share < one else one
        share = share * share * (np.float32(3.0) - np.float32(2.0) * share)
        fade = up * np.float32(7.0)
        fade = fade if fade < one else one
        light_here = one - (one - grey) * share
        share *= fade * np.float32(0.85)
        red[i] += (white_r * light_here - red[i]) * share
        green[i] += (white_g * light_here - green[i]) * share
        blue[i] += (white_b * light_here - blue[i]) * share


@njit(**FAST)
def hills_row(dx, dy, dz, turns, heading, skyline, light, red, green, blue):
    """Hills and trees far away, where a row looks just above the horizon. turns: azimuth in ego as a share of a turn in
    [0, 1); heading: that of the ego, the same way."""
    one, zero = np.float32(1.0), np.float32(0.0)
    places = np.int32(skyline.shape[0])
    low = np.uint32(places - 1)
    clear = one / (one + np.float32(1000.0) * light[HAZE])
    shine = light[AMBIENT + 1] + np.float32(0.4) * light[DIRECT + 1]
    for i in range(dx.shape[0]):
        away = math.sqrt(dx[i] * dx[i] + dy[i] * dy[i])
        place = (turns[i] + heading) * np.float32(places)
        first = np.int32(place)
        rest = place - np.float32(first)
        left, right = skyline[np.uint32(first) & low], skyline[np.uint32(first + np.int32(1)) & low]
        height = (left + (right - left) * rest) * away
        share = (height - dz[i]) * np.float32(260.0) / away
        share = share if share > zero else zero
        share = share if share < one else one
        share *= clear
        red[i] += (np.float32(58.0) * shine - red[i]) * share
        green[i] += (np.float32(78.0) * shine - green[i]) * share
        blue[i] += (np.float32(66.0) * shine - blue[i]) * share
