"""Rain in a picture: a wet road that mirrors what is above it, and falling drops.

Knows a finished picture and where its rays go; knows nothing about boxes or lamps.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sim.counter_random import mix
from sim.roads.ground import GroundClass
from sim.sensors.cast import FAST, GROUND, INLINE
from sim.sensors.ground_texture import grain_at
from sim.sensors.light import HORIZON, RAIN, WET, ZENITH
from sim.simd import greatest, least, to_int
from sim.simd_memory import gather

_GLOSS = {GroundClass.TERRAIN: 20.0, GroundClass.SIDEWALK: 110.0, GroundClass.KERB: 110.0}
_GLOSS_OF = np.array([_GLOSS.get(kind, 255.0) for kind in GroundClass], np.float32)


def mirror_table(
    directions: NDArray[np.float32],
    camera_from_ego: NDArray[np.float32],
    intrinsics: NDArray[np.float32],
    *,
    pinhole: bool,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Which pixel a ray sees that level water throws back, (H, W) int32 row * W + column or -1, and how much of it, float32.

    directions: (3, H, W) in ego; intrinsics: fx fy cx cy. Rays that look up see nothing in the water. Without
    a pinhole lens the place is always -1: there, water mirrors the sky alone. The share is that of
    Schlick (1994) for water, less where the road's roughness spreads it.
    """
    rows, columns = directions.shape[1:]
    up = directions * np.array([1.0, 1.0, -1.0], np.float32)[:, None, None]
    x, y, z = np.einsum("ij,jhw->ihw", camera_from_ego, up)
    ahead = np.maximum(z, 1e-6)
    u, v = np.rint(intrinsics[0] * x / ahead + intrinsics[2]), np.rint(intrinsics[1] * y / ahead + intrinsics[3])
    seen = (z > 1e-6) & (u >= 0) & (u < columns) & (v >= 0) & (v < rows) & (directions[2] < 0) & pinhole
    place = np.where(seen, np.where(seen, v, 0) * columns + np.where(seen, u, 0), -1).astype(np.int32)
    cosine = np.clip(-directions[2] / np.linalg.norm(directions, axis=0), 0.0, 1.0)
    share = 0.02 + 0.98 * (1.0 - cosine) ** 5
    return place, (share * np.clip(8.0 * cosine, 0.35, 1.0)).astype(np.float32)


@njit(**INLINE)
def gloss(kind, column, row, noise):
    """How well sixteen places on the ground mirror when wet, 0 to 255: puddles and paving do, earth does not."""
    low = np.int32(255)
    coarse = grain_at(noise, ((row & low) << 8) | (column & low))
    puddle = least(greatest(coarse * np.float32(2.0) + np.float32(0.5), np.float32(0.0)), np.float32(1.0))
    return to_int(gather(_GLOSS_OF, kind) * (np.float32(0.7) + np.float32(0.3) * puddle))


@njit(**FAST)
def mirror_wet_ground(image, code, shine, dz, mirror, share, light):
    """Mix what the water mirrors into the ground pixels of image (H, W, 3) uint8; a rough road smears it upright.
    shine: (H, W) uint8 of `gloss`."""
    rows, columns = code.shape
    spread = max(1, rows // 60)
    wet = light[WET]
    for v in range(rows):
        for u in range(columns):
            if code[v, u] != GROUND:
                continue
            at = mirror[v, u]
            mix_share = (
                np.float32(0.85) * wet * share[v, u] * np.float32(np.int32(shine[v, u])) * np.float32(1.0 / 255.0)
            )
            if at < 0:
                up = min(np.float32(1.0), np.float32(-1.7) * dz[v, u])
                for c in range(3):
                    sky = light[HORIZON + c] + (light[ZENITH + c] - light[HORIZON + c]) * up
                    image[v, u, c] = np.uint8(
                        np.float32(image[v, u, c]) * (np.float32(1.0) - mix_share) + sky * mix_share
                    )
                continue
            row = at // columns
            column = at - row * columns
            above, beyond = max(row - 3 * spread, 0), max(row - spread, 0)
            for c in range(3):
                seen = np.float32(image[row, column, c]) + np.float32(image[beyond, column, c])
                seen += np.float32(image[above, column, c])
                seen *= np.float32(1.0 / 3.0)
                image[v, u, c] = np.uint8(np.float32(image[v, u, c]) * (np.float32(1.0) - mix_share) + seen * mix_share)


@njit(**FAST)
def draw_drops(image, key, light):
    """Streaks of falling rain, of places and lengths that belong to the key (uint64)."""
    rows, columns = image.shape[0], image.shape[1]
    drops = np.int64(np.float32(rows * columns) * min(light[RAIN], np.float32(40.0)) * np.float32(4e-5))
    bright = (light[HORIZON] + light[HORIZON + 1] + light[HORIZON + 2]) * np.float32(0.36)
    low = np.uint64(0xFFFF)
    for n in range(drops):
        h = mix(key + np.uint64(n))
        u = np.int64(h & low) * columns >> 16
        v = np.int64((h >> np.uint64(16)) & low) * rows >> 16
        near = np.float32(np.int64((h >> np.uint64(32)) & low)) * np.float32(1.0 / 65536.0)
        near *= near
        length = max(2, np.int64(np.float32(rows) * (np.float32(0.02) + np.float32(0.09) * near)))
        share = np.float32(0.10) + np.float32(0.16) * near
        for k in range(min(length, rows - v)):
            for c in range(3):
                old = np.float32(image[v + k, u, c])
                image[v + k, u, c] = np.uint8(
                    min(old + (bright - old) * share, np.float32(255.0)) if bright > old else old
                )
