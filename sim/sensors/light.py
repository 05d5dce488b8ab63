"""Weather and time of day of each environment, as the few numbers that shading needs.

Knows sun, sky, fog, rain and lamps; knows nothing about solids, rays or traffic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sim.counter_random import Purpose, uniform_array
from sim.world import WorldState

# Columns of an environment's light, float32. Colours are RGB: of surfaces in shares of their own colour, of the sky and of
# glow in grey levels. Everything is as the camera exposes it.
SUN = 0  # unit vector in ego
AMBIENT, DIRECT = 3, 6  # light from the whole sky, and of the sun on a face that looks at it (0 when it is down)
HORIZON, ZENITH = 9, 12
LAMP = 15  # light under a street lamp
GLOW = 18  # the sky around the sun
HAZE = 21  # extinction, 1/m
WET, RAIN = 22, 23  # share of a road that is wet, rain in mm/h
LAMPS, BEAM = 24, 25  # whether vehicles and streets have their lamps on, and light of the ego's own
CLOUD = 26  # share of the sky with clouds
LIGHT_COLUMNS = 27

CLEAR_HAZE_PER_M = 1.0 / 900.0
# Meteorological visibility is where contrast has fallen to 2 % (Koschmieder 1924): extinction is 3.912 over it.
_VISIBILITY = 3.912

WeatherName = Literal[
    "clear", "random", "clear-noon", "cloudy-noon", "wet-noon", "rain-noon", "hard-rain-noon", "fog-noon", "clear-sunset",
    "cloudy-sunset", "wet-sunset", "rain-sunset", "fog-sunset", "dusk", "clear-night", "wet-night", "rain-night", "fog-night",
]  # fmt: skip


@dataclass(frozen=True)
class Weather:
    """Weather and time of day: sun (degrees), cloud and wetness in [0, 1], visibility in metres, rain in mm/h."""

    sun_elevation_deg: float
    sun_azimuth_deg: float = 140.0
    cloud: float = 0.25
    visibility_m: float = 10_000.0
    rain_mm_h: float = 0.0
    wetness: float = 0.0

    @property
    def fog_per_m(self) -> float:
        """Extinction of fog, 1/m."""
        return _VISIBILITY / self.visibility_m if self.visibility_m < 3000.0 else 0.0


def draw_weather(name: WeatherName, seed: int, episode: int) -> Weather:
    """The weather of an episode. `clear` is daylight with a sun and clouds of its own, `random` is anything at any hour, the
    others say which; where the sun stands around the horizon is always the episode's own.
    """
    draws = uniform_array(seed, episode, 0, np.arange(10), Purpose.WEATHER).tolist()
    azimuth = 360.0 * draws[0]
    match name:
        case "clear":
            return Weather(28.0 + 32.0 * draws[1], azimuth, 0.55 * draws[2])
        case "random":
            return _anything(azimuth, draws[1:])
        case _:
            kind, _, hour = name.rpartition("-")
            elevation = {"noon": 48.0, "sunset": 7.0, "night": -25.0, "dusk": -2.5}[hour]
            match kind:
                case "cloudy":
                    return Weather(elevation, azimuth, 0.85)
                case "wet":
                    return Weather(elevation, azimuth, wetness=0.9)
                case "rain":
                    return Weather(elevation, azimuth, 0.95, 1500.0, rain_mm_h=6.0, wetness=0.9)
                case "hard-rain":
                    return Weather(elevation, azimuth, 1.0, 500.0, rain_mm_h=25.0, wetness=1.0)
                case "fog":
                    return Weather(elevation, azimuth, 0.9, 130.0, wetness=0.2)
                case _:
                    return Weather(elevation, azimuth)


def _anything(azimuth: float, draws: list[float]) -> Weather:
    """Half of the time daylight, else a low sun or night; rain in a quarter of episodes, fog in an eighth."""
    if draws[0] < 0.55:
        elevation = 12.0 + 50.0 * draws[1]
    elif draws[0] < 0.8:
        elevation = -5.0 + 15.0 * draws[1]
    else:
        elevation = -25.0
    cloud, visibility, rain, wetness = draws[2], 10_000.0, 0.0, 0.0
    if draws[3] < 0.25:
        rain = 1.0 + 24.0 * draws[4] ** 2
        cloud, visibility, wetness = 0.85 + 0.15 * draws[2], 2500.0 / (1.0 + 0.15 * rain), 0.5 + 0.5 * draws[5]
    elif draws[3] < 0.375:
        cloud, visibility = 0.9, 60.0 + 500.0 * draws[4]
    elif draws[3] < 0.5:
        wetness = draws[5]
    return Weather(elevation, azimuth, cloud, visibility, rain, wetness)


# Colours of a clear sky and of its light by the sun's elevation, degrees.
_ELEVATIONS = (-18.0, -6.0, -1.0, 0.0, 3.0, 6.0, 15.0, 30.0)
_HORIZON = ((34, 36, 50), (92, 92, 122), (198, 152, 136), (214, 158, 128), (226, 178, 144), (226, 196, 170),
            (214, 216, 220), (208, 220, 231))  # fmt: skip
_ZENITH = ((9, 11, 22), (30, 40, 76), (54, 74, 124), (58, 80, 132), (68, 98, 152), (76, 112, 170), (82, 130, 194),
           (86, 139, 205))  # fmt: skip
_AMBIENT = ((0.085, 0.095, 0.135), (0.22, 0.23, 0.29), (0.34, 0.33, 0.37), (0.36, 0.35, 0.38), (0.42, 0.41, 0.43),
            (0.46, 0.45, 0.47), (0.51, 0.52, 0.55), (0.53, 0.55, 0.58))  # fmt: skip
_DIRECT = ((0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0), (0.46, 0.29, 0.16), (0.66, 0.47, 0.31), (0.76, 0.67, 0.54),
           (0.80, 0.77, 0.70))  # fmt: skip
_GLOW = ((0, 0, 0), (22, 12, 10), (62, 28, 4), (72, 36, 8), (74, 44, 16), (66, 44, 22), (46, 42, 36), (38, 38, 38))
_GREY = np.array([0.95, 0.98, 1.02])


def light_of(weather: Weather) -> NDArray[np.float32]:
    """(LIGHT_COLUMNS,) float32: the light of a weather, with the sun in world axes."""
    elevation, azimuth = math.radians(weather.sun_elevation_deg), math.radians(weather.sun_azimuth_deg)
    horizon, zenith, ambient, direct, glow = (
        np.array([np.interp(weather.sun_elevation_deg, _ELEVATIONS, [row[c] for row in table]) for c in range(3)])
        for table in (_HORIZON, _ZENITH, _AMBIENT, _DIRECT, _GLOW)
    )
    fog = min(1.0, weather.fog_per_m * 60.0)
    grey = max(min(1.0, max(0.0, weather.cloud - 0.3) / 0.6), fog)
    veiled = (1 - grey) * horizon + grey * (0.86 - 0.12 * min(1.0, weather.rain_mm_h / 20.0)) * horizon.mean() * _GREY
    dull = (1 - grey) * zenith + grey * (0.55 * horizon.mean() + 0.3 * zenith.mean()) * _GREY
    dull = (1 - fog) * dull + fog * veiled
    night = 1.0 - float(np.clip((weather.sun_elevation_deg + 6.0) / 8.0, 0.0, 1.0))
    row = np.zeros(LIGHT_COLUMNS, np.float32)
    row[SUN : SUN + 3] = [
        math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)
    ]  # fmt: skip
    row[AMBIENT : AMBIENT + 3] = ((1 - grey) * ambient + grey * ambient.mean() * _GREY) * (1 + 0.3 * grey * (1 - night))
    row[DIRECT : DIRECT + 3] = direct * (1 - 0.9 * grey) * (1 - 0.15 * weather.cloud)
    row[HORIZON : HORIZON + 3], row[ZENITH : ZENITH + 3] = veiled, dull
    row[GLOW : GLOW + 3] = glow * (1 - 0.9 * grey)
    row[LAMP : LAMP + 3] = night * np.array([0.62, 0.52, 0.36])
    row[HAZE] = CLEAR_HAZE_PER_M + weather.fog_per_m
    row[WET], row[RAIN] = weather.wetness, weather.rain_mm_h
    row[LAMPS] = 1.0 if night > 0.3 or weather.rain_mm_h > 4.0 or fog > 0.5 else 0.0
    row[BEAM] = 1.25 * night
    row[CLOUD] = weather.cloud * (1 - fog)
    return row


class Light:
    """Weather and light of E environments, drawn anew for each episode.

    rows: (E, LIGHT_COLUMNS) float32, the sun in the ego frame once `SensorSuite.observe` has turned it there. sun_world:
    (E, 3) float64 unit vectors. weather: of each environment.
    """

    def __init__(self, name: WeatherName, num_envs: int) -> None:
        self.name: WeatherName = name
        self.rows = np.zeros((num_envs, LIGHT_COLUMNS), np.float32)
        self.sun_world = np.zeros((num_envs, 3))
        self.weather = [Weather(45.0)] * num_envs
        self._seed = np.zeros(num_envs, np.uint64)
        self._episode = np.full(num_envs, -1, np.int64)

    def draw(self, state: WorldState, which: NDArray[np.intp]) -> NDArray[np.intp]:
        """The weather of those environments in which an episode has begun; which these are."""
        new = (self._seed[which] != state.seed[which]) | (self._episode[which] != state.episode[which])
        begun: NDArray[np.intp] = which[new]
        for e in begun:
            self._seed[e], self._episode[e] = state.seed[e], state.episode[e]
            self.weather[e] = draw_weather(self.name, int(state.seed[e]), int(state.episode[e]))
            self.rows[e] = light_of(self.weather[e])
            self.sun_world[e] = self.rows[e, SUN : SUN + 3]
        return begun
