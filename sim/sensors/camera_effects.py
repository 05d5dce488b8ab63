"""What a real camera adds to a perfect picture: motion during the exposure, rolling shutter, exposure, noise, JPEG.

Knows pictures, what their rays met and how that moves; knows nothing about traffic, lenses' models or colours' origin. A pass
of its own after shading, which is not there at all while everything is off. Labels stay those of the middle of the exposure.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from sim.counter_random import Purpose, hash_key
from sim.sensors.cast import FAST

BLUR_SAMPLES = 8
_NOISE = int(Purpose.CAMERA_NOISE)
# The standard normal distribution at evenly spaced probabilities.
_NORMAL = np.array([NormalDist().inv_cdf((k + 0.5) / 4096) for k in range(4096)], np.float32)
_GAMMA = 2.2


class EffectsConfig(BaseModel):
    """What a camera adds to its pictures; nothing by default. Grey levels are those of the stored picture, 0 to 255."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
    exposure_time_s: float = Field(default=0.0, ge=0, le=0.1, description="motion blur: how long the shutter is open")
    readout_time_s: float = Field(
        default=0.0, ge=0, le=0.1, description="rolling shutter: from the first row to the last"
    )
    exposure_ev: float = Field(default=0.0, ge=-8, le=8, description="stops by which more light is taken")
    read_noise: float = Field(default=0.0, ge=0, le=50, description="standard deviation in the dark, grey levels")
    shot_noise: float = Field(default=0.0, ge=0, le=5, description="variance per grey level")
    jpeg_quality: int | None = Field(default=None, ge=1, le=100)

    @property
    def any(self) -> bool:
        return self != EffectsConfig()


@njit(**FAST)
def _flow_row(
    depth, code, dx, dy, dz, up_x, up_y, up_z, down_x, down_y, down_z, per_rows, velocity, motion, flow_u, flow_v
):
    """Velocity of what each pixel of a row sees across the picture, pixels a second.

    up and down are the rows of directions above and below, 1 / per_rows rows apart; velocity (K, 2) that of each box in ego
    axes; motion: the ego's speed and yaw rate, then the sensor's place. A ray's end p moves as its pixel and its length
    change: p' = length' d + length (d_u u' + d_v v'), three equations for length', u' and v' (Cramer's rule).
    """
    speed, yaw_rate, ox, oy = motion
    columns = depth.shape[0]
    for i in range(columns):
        before, after = max(i - 1, 0), min(i + 1, columns - 1)
        per = np.float32(1.0) / np.float32(after - before)
        ux, uy, uz = (dx[after] - dx[before]) * per, (dy[after] - dy[before]) * per, (dz[after] - dz[before]) * per
        vx, vy, vz = (
            (down_x[i] - up_x[i]) * per_rows,
            (down_y[i] - up_y[i]) * per_rows,
            (down_z[i] - up_z[i]) * per_rows,
        )
        t = depth[i]
        px, py = ox + t * dx[i], oy + t * dy[i]
        mx, my = yaw_rate * py - speed, -yaw_rate * px
        if code[i] >= 0:
            k = np.uint32(code[i] >> 2)
            mx, my = mx + velocity[k, 0], my + velocity[k, 1]
        # d x d_v and d_u x d
        ax, ay, az = dy[i] * vz - dz[i] * vy, dz[i] * vx - dx[i] * vz, dx[i] * vy - dy[i] * vx
        bx, by = uy * dz[i] - uz * dy[i], uz * dx[i] - ux * dz[i]
        volume = -(ux * ax + uy * ay + uz * az) * t
        flow_u[i] = -(mx * ax + my * ay) / volume
        flow_v[i] = -(mx * bx + my * by) / volume


@njit(**FAST)
def image_flow(depth, code, directions, velocity, motion, flow):
    """Fill flow (2, H, W) float32 with the velocity of what each pixel sees, pixels a second along columns and rows.

    directions: (3, H, W). Arguments as in `_flow_row`. What is seen keeps its own velocity; how its parts turn is left out.
    """
    rows = depth.shape[0]
    for v in range(rows):
        above, below = max(v - 1, 0), min(v + 1, rows - 1)
        _flow_row(
            depth[v], code[v], directions[0, v], directions[1, v], directions[2, v], directions[0, above], directions[1, above],
            directions[2, above], directions[0, below], directions[1, below], directions[2, below],
            np.float32(1.0) / np.float32(below - above), velocity, motion, flow[0, v], flow[1, v],
        )  # fmt: skip


@njit(**FAST)
def _lookup_maps(flow, first_s, per_row_s, map_u, map_v):
    """Where each pixel's light was at the middle of the exposure, if the row v is taken first_s + v * per_row_s later."""
    for v in range(flow.shape[1]):
        later = first_s + np.float32(v) * per_row_s
        row_u, row_v, flow_u, flow_v = map_u[v], map_v[v], flow[0, v], flow[1, v]
        for u in range(row_u.shape[0]):
            row_u[u] = np.float32(u) - flow_u[u] * later
            row_v[u] = np.float32(v) - flow_v[u] * later


@njit(**FAST)
def add_noise(image, key, normal, read_noise, shot_noise):
    """Add noise to a picture (H, W, 3) uint8 in place, its variance read_noise ** 2 + shot_noise * grey level.

    normal: (2^n,) float32 standard normal numbers, of which a hash of the key and the place in the picture chooses.
    """
    low, place = np.uint32(normal.shape[0] - 1), np.uint32(key >> np.uint64(32))
    floor = read_noise * read_noise
    columns = image.shape[1]
    for v in range(image.shape[0]):
        for u in range(columns):
            for c in range(3):
                h = (np.uint32((v * columns + u) * 3 + c) + place) * np.uint32(0x9E3779B1)
                h = (h ^ (h >> np.uint32(15))) * np.uint32(0x85EBCA77)
                h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE3D)
                level = np.float32(image[v, u, c])
                level += math.sqrt(floor + shot_noise * level) * normal[(h >> np.uint32(16)) & low] + np.float32(0.5)
                image[v, u, c] = np.uint8(min(max(level, np.float32(0.0)), np.float32(255.0)))


@njit(cache=True)
def _key(seed, episode, tick, camera):
    return hash_key(seed, episode, tick, camera, _NOISE)


class CameraEffects:
    """The effects of one camera; owns their scratch, so that only JPEG takes memory while it runs.

    Rolling shutter and blur move pixels by what is seen at each of them, so at the edge of something in front they take its
    motion or that of what is behind, and what was hidden in the middle of the exposure cannot appear.
    """

    def __init__(self, config: EffectsConfig, camera: int, directions: NDArray[np.float32]) -> None:
        """camera: its number in the rig, so that no two cameras share their noise. directions: (3, H, W) in ego."""
        self.config, self.camera, self.directions = config, camera, directions
        shape = directions.shape[1:]
        self.moves = config.exposure_time_s > 0 or config.readout_time_s > 0
        scratch = shape if self.moves else (0, 0)
        self._flow = np.zeros((2, *scratch), np.float32)
        self._maps = np.zeros((2, *scratch), np.float32)
        self._moved = np.zeros((*scratch, 3), np.uint8)
        self._sum = np.zeros((*scratch, 3), np.float32)
        levels = np.arange(256) / 255.0
        brighter = 255.0 * (levels**_GAMMA * 2.0**config.exposure_ev) ** (1 / _GAMMA)
        self._table = np.clip(np.rint(brighter), 0, 255).astype(np.uint8)

    def apply(
        self, image: NDArray[np.uint8], depth: NDArray[np.float32], code: NDArray[np.int32], velocity: NDArray[np.float32],
        motion: tuple[float, float, float, float], counter: tuple[int, int, int],
    ) -> None:  # fmt: skip
        """Change one picture (H, W, 3) in place.

        depth, code: (H, W), what was met. velocity: (K, 2) float32 m/s of every box in ego axes. motion: speed and yaw rate of
        the ego, then x and y of the camera in ego. counter: seed, episode and tick, which the noise belongs to.
        """
        config = self.config
        if self.moves:
            image_flow(depth, code, self.directions, velocity, tuple(np.float32(m) for m in motion), self._flow)
            self._move(image)
        if config.exposure_ev != 0.0:
            cv2.LUT(image, self._table, dst=image)
        if config.read_noise > 0 or config.shot_noise > 0:
            key = np.uint64(_key(np.uint64(counter[0]), counter[1], counter[2], self.camera))
            add_noise(image, key, _NORMAL, np.float32(config.read_noise), np.float32(config.shot_noise))
        if config.jpeg_quality is not None:
            cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=image)
            _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality])
            cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB, dst=image)

    def _move(self, image: NDArray[np.uint8]) -> None:
        rows, config = image.shape[0], self.config
        per_row = config.readout_time_s / rows
        samples = BLUR_SAMPLES if config.exposure_time_s > 0 else 1
        self._sum[:] = 0
        for k in range(samples):
            moment = ((k + 0.5) / samples - 0.5) * config.exposure_time_s - 0.5 * (rows - 1) * per_row
            _lookup_maps(self._flow, np.float32(moment), np.float32(per_row), self._maps[0], self._maps[1])
            cv2.remap(
                image, self._maps[0], self._maps[1], cv2.INTER_LINEAR, dst=self._moved, borderMode=cv2.BORDER_REPLICATE
            )
            cv2.accumulate(self._moved, self._sum)
        np.rint(self._sum / samples, out=self._sum)
        np.copyto(image, self._sum, casting="unsafe")
