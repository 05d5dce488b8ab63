"""LiDARs that one can buy: beam tables, ranges, rates and noise, from their data sheets and manuals.

Knows numbers and where they come from; knows nothing about rigs, rays or the world.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

LidarName = Literal["VLP-16", "HDL-32E", "HDL-64E", "Pandar64", "OS1-128"]


class LidarModelError(ValueError):
    """A LiDAR that is not known, or that does not turn or fire as asked."""


@dataclass(frozen=True)
class LidarModel:
    """What a data sheet says of one LiDAR.

    elevations_deg: of each beam, falling. azimuth_offsets_deg: of each beam from the rotor, counter-clockwise; empty where
        all beams lie in one plane.
    rates_hz: allowed turns per second. firing_period_us: from one firing of a beam to its next, which gives the columns.
    clockwise: how the rotor turns, seen from above.
    min_range_m, max_range_m: what the sensor reports. sensitivity_m: how far a matt surface that sends back a tenth of the
        light, met head on, is seen in half of the shots.
    range_noise_m: standard deviation. white: reported intensity, as a share of the largest, of a white matt surface; above
        that come retro-reflectors. rooted: whether intensity grows with the square root of the light that comes back.
    points_per_second: single return, as the data sheet rounds it. source: of all these.
    """

    name: LidarName
    elevations_deg: tuple[float, ...]
    azimuth_offsets_deg: tuple[float, ...]
    rates_hz: tuple[int, ...]
    firing_period_us: float
    clockwise: bool
    min_range_m: float
    max_range_m: float
    sensitivity_m: float
    range_noise_m: float
    white: float
    rooted: bool
    points_per_second: int
    source: str

    def columns(self, rate_hz: int) -> int:
        """Firings of a beam in one turn.

        Raises:
            LidarModelError: the sensor does not turn that fast or slow.
        """
        if rate_hz not in self.rates_hz:
            raise LidarModelError(f"{self.name} turns {_listed(self.rates_hz)} times a second, not {rate_hz}")
        return round(1e6 / (rate_hz * self.firing_period_us))


def _listed(rates: tuple[int, ...]) -> str:
    return f"{rates[0]} to {rates[-1]}" if len(rates) > 2 else " or ".join(str(r) for r in rates)


def _evenly(top_deg: float, bottom_deg: float, beams: int) -> tuple[float, ...]:
    return tuple(round(float(e), 4) for e in np.linspace(top_deg, bottom_deg, beams))


# Design values of the Pandar64 (user's manual, appendix I): six beams above, then 48 that are a sixth of a degree apart and
# fan out in azimuth, then ten below. A real unit differs by up to 0.1 degrees; its own calibration file says by how much.
_PANDAR64 = (
    14.882, 11.032, 8.059, 5.057, 3.04, 2.028,
    1.86, 1.688, 1.522, 1.351, 1.184, 1.013, 0.846, 0.675, 0.508, 0.337, 0.169, 0.0, -0.169, -0.337, -0.508, -0.675, -0.845, -1.013,
    -1.184, -1.351, -1.522, -1.688, -1.86, -2.028, -2.198, -2.365, -2.536, -2.7, -2.873, -3.04, -3.21, -3.375, -3.548, -3.712,
    -3.884, -4.05, -4.221, -4.385, -4.558, -4.72, -4.892, -5.057, -5.229, -5.391, -5.565, -5.726, -5.898, -6.061,
    -7.063, -8.059, -9.06, -9.885, -11.032, -12.006, -12.974, -13.93, -18.889, -24.897,
)  # fmt: skip
# The manual counts azimuth clockwise; we count it counter-clockwise.
_PANDAR64_FAN = (-1.042, -3.125, -5.208, 5.208, 3.125, 1.042)

_OS1_CUBIC = (-0.464, -22.384, 0.033, 0.99)


def _os1_128() -> tuple[float, ...]:
    """A cubic through the angles that one unit was calibrated to (part 840-103575-06); within 0.03 degrees of all 128."""
    k = (np.arange(128) - 63.5) / 63.5
    return tuple(
        round(float(e), 3) for e in _OS1_CUBIC[0] + k * (_OS1_CUBIC[1] + k * (_OS1_CUBIC[2] + k * _OS1_CUBIC[3]))
    )


def lidar_model(name: str) -> LidarModel:
    """The LiDAR of that name.

    Raises:
        LidarModelError: none has it.
    """
    match name:
        case "VLP-16":
            return LidarModel(
                name, _evenly(15.0, -15.0, 16), (), tuple(range(5, 21)), 55.296, True, 0.5, 100.0, 60.0, 0.012, 100 / 255,
                False, 300_000, "Velodyne VLP-16 data sheet 63-9229 and user manual 63-9243; sensitivity, noise estimated",
            )  # fmt: skip
        case "HDL-32E":
            return LidarModel(
                name, _evenly(10.67, -30.67, 32), (), tuple(range(5, 21)), 46.08, True, 1.0, 100.0, 60.0, 0.02, 100 / 255,
                False, 695_000, "Velodyne HDL-32E user's manual 63-9113; sensitivity estimated",
            )  # fmt: skip
        case "HDL-64E":
            # Two blocks of 32 lasers; the manual gives the field of view, the spacing is that of the unit behind KITTI.
            return LidarModel(
                name, (*_evenly(1.93, -8.7, 32), *_evenly(-8.96, -24.95, 32)), (), tuple(range(5, 21)), 48.0, False, 0.9,
                120.0, 80.0, 0.012, 0.85, True, 1_300_000,
                "Velodyne HDL-64E manuals 63-HDL64E S2 and S3; sensitivity so that pavement, flat as it is met, ends at 50 m",
            )  # fmt: skip
        case "Pandar64":
            return LidarModel(
                name, _PANDAR64, (1.042,) * 6 + _PANDAR64_FAN * 8 + (1.042,) * 10, (10, 20), 55.5556, True, 0.3, 200.0, 200.0,
                0.02, 100 / 255, False, 1_152_000, "Hesai Pandar64 user's manual: 200 m at 10 % reflectivity",
            )  # fmt: skip
        case "OS1-128":
            return LidarModel(
                name, _os1_128(), (-4.22, -1.41, 1.41, 4.22) * 32, (10, 20), 1e6 / 20_480, True, 0.8, 120.0, 40.0, 0.015,
                100 / 255, False, 2_621_440, "Ouster OS1 data sheet, generation 1: 40 m at 10 %, 120 m at 80 % reflectivity",
            )  # fmt: skip
        case _:
            known = ", ".join(LIDAR_NAMES)
            raise LidarModelError(f'no LiDAR named "{name}". Known: {known}')


LIDAR_NAMES: tuple[LidarName, ...] = ("VLP-16", "HDL-32E", "HDL-64E", "Pandar64", "OS1-128")
