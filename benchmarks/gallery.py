"""Makes the pictures of docs/gallery.md and the README's first one: weather, views and rigs, of one town and one seed.

    python benchmarks/gallery.py [--out docs/images]

Every picture is what the sensors gave, enlarged nowhere; only labels of the tiles are drawn on it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.sensors import SemanticClass
from planning.route_follower import RouteFollower
from sim.drawing import Rect, text, text_width
from sim.drive_batch import DriveBatch, EnvConfig
from sim.sensors.light import WeatherName
from sim.sensors.rig import CameraConfig, Mount, RigConfig, rig
from sim.sensors.suite import SensorSuite

Picture = NDArray[np.uint8]

TOWN, SEED, TICKS = "grid-small", 23, 180
WEATHERS: tuple[WeatherName, ...] = (
    "clear-noon", "cloudy-noon", "clear-sunset", "dusk", "clear-night", "wet-night", "rain-noon", "hard-rain-noon",
    "wet-sunset", "rain-night", "fog-noon", "fog-night",
)  # fmt: skip
FIRST: tuple[WeatherName, ...] = ("clear-noon", "clear-sunset", "rain-night", "fog-noon")
RIGS = ("small", "full", "kitti", "nuscenes", "pandaset", "surround")
COLORS = {
    SemanticClass.SKY: (150, 180, 210), SemanticClass.TERRAIN: (110, 140, 90), SemanticClass.ROAD: (100, 90, 110),
    SemanticClass.LANE_MARKING: (240, 240, 240), SemanticClass.CROSSWALK: (220, 210, 160),
    SemanticClass.SIDEWALK: (190, 130, 190), SemanticClass.BUILDING: (120, 120, 120),
    SemanticClass.VEGETATION: (60, 120, 60), SemanticClass.POLE: (170, 160, 130),
    SemanticClass.TRAFFIC_LIGHT: (250, 170, 30), SemanticClass.TRAFFIC_SIGN: (220, 220, 0),
    SemanticClass.VEHICLE: (30, 60, 200), SemanticClass.TWO_WHEELER: (150, 40, 60), SemanticClass.PEDESTRIAN: (220, 40, 60),
    SemanticClass.BARRIER: (160, 120, 90),
}  # fmt: skip


def scene() -> DriveBatch:
    """The town with its traffic after the expert has driven for a while."""
    batch = DriveBatch(EnvConfig.of(map=TOWN, observation="privileged"), 1)
    started = np.ones(1, np.bool_)
    batch.reset(started, np.array([SEED], np.uint64), np.zeros(1, np.int64))
    policy = RouteFollower()
    policy.reset(started)
    for _ in range(TICKS):
        batch.step(policy.act(batch.observation, batch.situation))  # type: ignore[arg-type]
    return batch


def look(batch: DriveBatch, sensors: RigConfig, weather: WeatherName) -> SensorSuite:
    """What a rig senses of the scene."""
    suite = SensorSuite(sensors, batch.map, 1, batch.world.state.x_m.shape[1], labels=True, weather=weather)
    suite.observe(batch.world.state)
    return suite


def single(width_px: int, height_px: int) -> RigConfig:
    """One front camera and the LiDAR of rig `small`."""
    camera = CameraConfig(
        name="camera", width_px=width_px, height_px=height_px, horizontal_fov_deg=80.0, mount=Mount(z_m=1.6)
    )
    return RigConfig(cameras=(camera,), lidar=rig("small").lidar)


def labelled(picture: Picture, name: str) -> Picture:
    """A copy with the name in its upper left corner."""
    out = picture.copy()
    plate = Rect(6, 6, text_width(name, 13) + 14, 22).of(out)
    plate //= 3  # dark enough for white letters on any sky
    text(out, name, 13, 21, 13, (255, 255, 255))
    return out


def grid(pictures: list[Picture], columns: int) -> Picture:
    """Tiles of one size, row by row, with a narrow gap; missing ones are white."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    out = np.full((rows * (height + 4) - 4, columns * (width + 4) - 4, 3), 255, np.uint8)
    for k, picture in enumerate(pictures):
        top, left = (k // columns) * (height + 4), (k % columns) * (width + 4)
        out[top : top + height, left : left + width] = picture
    return out


def fitted(picture: Picture, name: str, width_px: int, height_px: int) -> Picture:
    """The picture made to fit, with its name, on the white of the page."""
    scale = min(width_px / picture.shape[1], height_px / picture.shape[0])
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    out = np.full((height_px, width_px, 3), 255, np.uint8)
    top, left = (height_px - size[1]) // 2, (width_px - size[0]) // 2
    out[top : top + size[1], left : left + size[0]] = labelled(small, name)
    return out


def depth_picture(depth: NDArray[np.float32]) -> Picture:
    """Near is bright, 80 m and more are dark."""
    share = np.clip(np.log(np.maximum(depth, 2.0) / 2.0) / np.log(40.0), 0.0, 1.0)
    colored = cv2.applyColorMap((255 * (1 - share)).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.asarray(colored[..., ::-1], np.uint8)


def lidar_picture(points: NDArray[np.float32], width_px: int, height_px: int) -> Picture:
    """The sweep from above, the ego looking right; colour says intensity, the brightest from 0.4 on."""
    out = np.full((height_px, width_px, 3), 14, np.uint8)
    per_m = width_px / 80.0
    u = np.rint(points[:, 0] * per_m + 0.35 * width_px).astype(int)
    v = np.rint(-points[:, 1] * per_m + 0.5 * height_px).astype(int)
    levels = np.rint(70 + 185 * np.sqrt(np.clip(points[:, 3] / 0.4, 0.0, 1.0))).astype(np.uint8).reshape(-1, 1)
    tones = cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS).reshape(-1, 3)[:, ::-1]
    for k in np.argsort(points[:, 2], kind="stable"):  # what stands covers the ground, in dots of two pixels
        out[max(v[k], 0) : max(v[k] + 2, 0), max(u[k], 0) : max(u[k] + 2, 0)] = tones[k]
    return out


def save(folder: Path, name: str, picture: Picture) -> None:
    path = folder / name
    for quality in (90, 84, 76, 66):
        cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        if path.stat().st_size < 390_000:
            break
    print(f"{path}: {picture.shape[1]} x {picture.shape[0]}, {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "images")
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    batch = scene()

    small = single(480, 240)
    tiles = [labelled(look(batch, small, name).images["camera"][0], name) for name in WEATHERS]
    save(folder, "gallery_weather.jpg", grid(tiles, 3))

    large = single(640, 320)
    save(folder, "looks.jpg", grid([look(batch, large, name).images["camera"][0] for name in FIRST], 2))

    suite = look(batch, large, "clear-noon")
    palette = np.array([COLORS[kind] for kind in SemanticClass], np.uint8)
    views = [
        labelled(suite.images["camera"][0], "camera"),
        labelled(palette[suite.semantic["camera"][0]], "semantic class"),
        labelled(depth_picture(suite.depth["camera"][0]), "depth"),
        labelled(lidar_picture(suite.points[0, : suite.point_count[0]], 640, 320), "LiDAR from above, intensity"),
    ]
    save(folder, "gallery_views.jpg", grid(views, 2))

    tiles = []
    for name in RIGS:
        cameras = RigConfig(cameras=rig(name).cameras, lidar=None)
        seen = look(batch, cameras, "clear-noon")
        tiles += [fitted(image[0], f"{name}: {camera}", 400, 225) for camera, image in seen.images.items()]
    save(folder, "gallery_rigs.jpg", grid(tiles, 3))


if __name__ == "__main__":
    main()
