"""Simulated against real LiDAR sweeps, ring by ring: share of returns, ranges, intensities. A table, a picture a sensor, JSON.

    python benchmarks/lidar_statistics.py --data ../shared/data --pictures docs/images --json runs/lidar.json

Real: a VLP-16 (tier4/nebula), KITTI's HDL-64E and PandaSet's Pandar64. Simulated: the same models at the same height on a street
with traffic, in several places and moments. The streets are not the same ones, so the numbers show how alike two streets are,
not how exact the sensor is; docs/lidar.md says which differences come from what. Exit code 0 and one line where there is no data.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from planning.route_follower import RouteFollower
from sim import drawing
from sim.logs.reader import open_log
from sim.roads.driving_map import load_map
from sim.sensors.lidar_models import LidarName, lidar_model
from sim.sensors.rig import LidarConfig, Mount, RigConfig
from sim.sensors.suite import SensorSuite
from sim.world import World, WorldConfig

RANGES_M = np.geomspace(0.5, 200.0, 33)
PERCENTILES = (10, 50, 90)


@dataclass(frozen=True)
class Returns:
    """What came back of all shots, along each ring in turn: beam (N,) counted from the top, range_m (N,), intensity (N,) in
    [0, 1]; shots of a beam.
    """

    name: LidarName
    beam: NDArray[np.int64]
    range_m: NDArray[np.float64]
    intensity: NDArray[np.float64]
    shots: int

    @property
    def beams(self) -> int:
        return len(lidar_model(self.name).elevations_deg)

    def share(self) -> NDArray[np.float64]:
        """(beams,): share of the shots of each beam that came back."""
        return np.bincount(self.beam, minlength=self.beams) / self.shots

    def histogram(self) -> NDArray[np.float64]:
        """(beams, bins): shares of each beam's shots that came back from each range."""
        counts = np.histogram2d(self.beam, self.range_m, bins=[np.arange(self.beams + 1), RANGES_M])[0]
        return np.asarray(counts / self.shots)

    def noise_m(self) -> float:
        """Standard deviation of range between neighbours on smooth ground, from second differences along the lower rings.

        Half a ring at most is anything but smooth, so the median is safe; kinks and grain still count, so this is an upper bound.
        """
        rings = [self.range_m[self.beam == b] for b in range(self.beams // 2, self.beams)]
        seconds = [np.abs(r[:-2] - 2 * r[1:-1] + r[2:]) for r in rings if len(r) > 100]
        return float(np.median([np.median(s) for s in seconds]) / 0.6745 / np.sqrt(6.0))

    def by_beam(self, values: NDArray[np.float64], percentile: float) -> NDArray[np.float64]:
        """(beams,): a percentile of the values of each beam, NaN where there are fewer than 10."""
        chosen = (values[self.beam == b] for b in range(self.beams))
        return np.array([np.percentile(v, percentile) if len(v) >= 10 else np.nan for v in chosen])


def real_vlp16(data: Path) -> Returns:
    """A sweep as decoded from its packets; where a shot has two returns, the nearer."""
    raw = next(iter(sorted((data / "velodyne" / "vlp16").glob("*.pcd")))).read_bytes()
    start = raw.index(b"DATA binary\n") + len(b"DATA binary\n")
    columns = [("xyz", "<f4", 3), ("intensity", "u1"), ("kind", "u1"), ("channel", "<u2"), ("azimuth", "<f4"),
               ("elevation", "<f4"), ("distance", "<f4"), ("time", "<u4")]  # fmt: skip
    points = np.frombuffer(raw[start:], np.dtype(columns))
    points = points[np.lexsort((points["distance"], points["azimuth"], points["channel"]))]
    first = np.ones(len(points), np.bool_)
    same = (points["channel"][1:] == points["channel"][:-1]) & (points["azimuth"][1:] == points["azimuth"][:-1])
    first[1:] = ~same
    points = points[first]
    shots = lidar_model("VLP-16").columns(10)
    beam = 15 - points["channel"].astype(np.int64)
    return Returns("VLP-16", beam, points["distance"].astype(float), points["intensity"] / 255.0, shots)


def real_hdl64e(data: Path) -> Returns:
    """Two streets of KITTI's, which stores beam after beam, top to bottom, each from straight ahead once around."""
    raw = next(iter(sorted((data / "kitti_raw").rglob("velodyne_points/data/0000000000.bin"))))
    clouds, beams = [], []
    for path in (raw, data / "kitti_object" / "training" / "velodyne" / "000000.bin"):
        clouds.append(np.fromfile(path, np.float32).reshape(-1, 4).astype(float))
        azimuth = np.arctan2(clouds[-1][:, 1], clouds[-1][:, 0])
        beams.append(np.concatenate([[0], np.cumsum((azimuth[:-1] < 0) & (azimuth[1:] >= 0))]))
        if beams[-1][-1] != 63:
            raise ValueError(f"{path} holds {beams[-1][-1] + 1} beams, not 64: it is no sweep of KITTI's")
    points, beam = np.concatenate(clouds), np.concatenate(beams)
    shots = 2 * lidar_model("HDL-64E").columns(10)
    return Returns("HDL-64E", beam, np.linalg.norm(points[:, :3], axis=1), points[:, 3], shots)


# Where the Pandar64 of PandaSet stands in the cloud's own frame (x right, y forward): position, forward speed that is left in
# the cloud, turn rate, tilt about x and y. Found by a search for what sharpens azimuth minus rotor angle, then elevation.
_PANDAR_X_M, _PANDAR_Y_M, _PANDAR_Z_M, _PANDAR_SPEED = 0.0, 0.723, 1.860, 1.150
_PANDAR_TURN_DEG, _PANDAR_AHEAD_DEG = -3604.2, 266.53
_PANDAR_TILT_X, _PANDAR_TILT_Y = -0.0154, 0.0012


def pandar64_rays(points: NDArray[np.float32], time_s: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Elevation and azimuth beyond the rotor's, degrees, and range, of a PandaSet sweep (N, 4) with times before its end."""
    seen = points[:, :3].astype(float) - [_PANDAR_X_M, _PANDAR_Y_M, _PANDAR_Z_M]
    seen[:, 1] -= _PANDAR_SPEED * time_s
    azimuth = np.degrees(np.arctan2(seen[:, 1], seen[:, 0])) - _PANDAR_TURN_DEG * time_s - _PANDAR_AHEAD_DEG
    x, y, z = seen.T
    upright = z - _PANDAR_TILT_Y * x + _PANDAR_TILT_X * y
    range_m = np.linalg.norm(seen, axis=1)
    return np.degrees(np.arcsin(upright / range_m)), (azimuth + 180.0) % 360.0 - 180.0, range_m


def real_pandar64(data: Path) -> Returns:
    """The first sweep of the cut, which holds every second point; the beam is the one whose angles fit best."""
    with open_log(data / "pandaset" / "ros2_mcap") as log:
        sweep = next(iter(next(iter(log.steps())).frame.lidars.values()))
    assert sweep is not None
    assert sweep.time_offset_us is not None
    elevation, azimuth, range_m = pandar64_rays(sweep.points, sweep.time_offset_us * 1e-6)
    model = lidar_model("Pandar64")
    # Steps of a sixth of a degree in elevation, of two degrees in azimuth: weighed so that both count alike.
    off = (elevation[:, None] - model.elevations_deg) ** 2 + 0.01 * (azimuth[:, None] - model.azimuth_offsets_deg) ** 2
    beam = off.argmin(axis=1)
    along = np.lexsort((sweep.time_offset_us, beam))
    kept = along[range_m[along] > 2.5]  # closer is the car itself, where a wrong origin makes angles meaningless
    intensity = sweep.points[:, 3].astype(float)
    return Returns("Pandar64", beam[kept], range_m[kept], intensity[kept], model.columns(10) // 2)


def simulated(name: LidarName, height_m: float, map_name: str, seeds: int, moments: int) -> Returns:
    """Sweeps of the model on the expert's car, pooled over seeds and moments 4 s apart."""
    lidar = LidarConfig.of_model(name, mount=Mount(x_m=1.0, z_m=height_m))
    driving_map = load_map(map_name)
    world, driver = World(driving_map, WorldConfig(agents=32), seeds), RouteFollower()
    world.reset(np.ones(seeds, np.bool_), np.arange(seeds, dtype=np.uint64), np.zeros(seeds, np.int64))
    suite = SensorSuite(RigConfig(cameras=(), lidar=lidar), driving_map, seeds, 32, labels=True)
    beams, points = [], []
    for tick in range(40 * moments):
        world.step(driver.act({}, world.situation()))
        if tick % 40 == 39:
            suite.observe(world.state)
            for e in range(seeds):
                count = suite.point_count[e]
                beams.append(suite.point_labels[e, :count, 0].astype(np.int64))
                points.append(suite.points[e, :count].copy())
    cloud = np.concatenate(points)
    range_m = np.linalg.norm(cloud[:, :3] - lidar.mount.ego_from_mount()[:3, 3], axis=1)
    shots = lidar.columns * seeds * moments
    return Returns(name, np.concatenate(beams), range_m, cloud[:, 3].astype(float), shots)


def compared(real: Returns, ours: Returns) -> dict[str, float]:
    """Numbers that say how alike two sets of returns are."""
    shares = real.share(), ours.share()
    distances = real.by_beam(real.range_m, 50), ours.by_beam(ours.range_m, 50)
    result = {
        "share of returns, real": float(shares[0].mean()),
        "share of returns, simulated": float(shares[1].mean()),
        "share by ring, mean difference": float(np.abs(shares[0] - shares[1]).mean()),
        "range histogram by ring, overlap": _overlap(real.histogram(), ours.histogram()),
        "median range by ring, median ratio": float(np.nanmedian(distances[1] / distances[0])),
    }
    for who, returns in (("real", real), ("simulated", ours)):
        result[f"range noise in m, {who}"] = returns.noise_m()
        for p in PERCENTILES:
            result[f"intensity, {p} %, {who}"] = float(np.percentile(returns.intensity, p))
    return result


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Mean over rings of the shared area of two histograms, each made to sum to 1."""
    shared = [np.minimum(p / p.sum(), q / q.sum()).sum() for p, q in zip(a, b, strict=True) if p.sum() and q.sum()]
    return float(np.mean(shared))


def picture(real: Returns, ours: Returns) -> drawing.Picture:
    """Range histograms by ring of both, and curves of share, median range and median intensity over the rings."""
    image = np.full((560, 1280, 3), drawing.BACKGROUND, np.uint8)
    drawing.text(image, real.name, 30, 42, 26, drawing.BRIGHT, 600)
    drawing.text(image, "rings from top to bottom", 1250, 42, 16, drawing.FAINT, align="right")
    for x, title, returns, color in ((30, "real", real, drawing.AMBER), (340, "simulated", ours, drawing.TEAL)):
        rect = drawing.Rect(x, 90, 280, 410)
        drawing.text(image, f"{title}: range by ring", x, 80, 16, color)
        glow = np.sqrt(np.clip(returns.histogram() / 0.35, 0, 1))[:, :, None]
        tile = np.asarray(drawing.SURFACE) + glow * (np.array(color, float) - np.asarray(drawing.SURFACE))
        rect.of(image)[:] = cv2.resize(
            tile.astype(np.uint8), (rect.width, rect.height), interpolation=cv2.INTER_NEAREST
        )
        for metres in (1, 3, 10, 30, 100):
            place = x + rect.width * np.log(metres / RANGES_M[0]) / np.log(RANGES_M[-1] / RANGES_M[0])
            drawing.text(image, f"{metres} m", place, 522, 14, drawing.SOFT, align="center")
    curves = (
        ("share of returns", lambda r: r.share(), 0.0, 1.0, False),
        ("median range, 1 to 100 m", lambda r: r.by_beam(r.range_m, 50), 1.0, 100.0, True),
        ("intensity: median, 10 to 90 %", lambda r: r.by_beam(r.intensity, 50), 0.0, 0.6, False),
    )
    for k, (title, curve, low, high, log) in enumerate(curves):
        rect = drawing.Rect(660 + 200 * k, 90, 180, 410)
        rect.of(image)[:] = drawing.SURFACE
        drawing.text(image, title, rect.x, 80, 14, drawing.SOFT)
        for share in (0.25, 0.5, 0.75):
            image[rect.y : rect.bottom, rect.x + round(rect.width * share)] = drawing.OUTLINE
        for value, align in ((low, "left"), (high, "right")):
            drawing.text(
                image, f"{value:g}", rect.x if align == "left" else rect.right, 522, 14, drawing.SOFT, align=align
            )
        for returns, color in ((real, drawing.AMBER), (ours, drawing.TEAL)):
            lines = [(curve(returns), 2)]
            if k == 2:
                lines += [(returns.by_beam(returns.intensity, p), 1) for p in (10, 90)]
            for values, width in lines:
                place = np.log(values / low) / np.log(high / low) if log else (values - low) / (high - low)
                y = rect.y + (np.arange(returns.beams) + 0.5) * rect.height / returns.beams
                line = np.column_stack([rect.x + rect.width * np.clip(place, 0, 1), y])
                drawing.polyline(image, line[np.isfinite(line).all(axis=1)], color, width)
    drawing.text(image, "real", 30, 548, 15, drawing.AMBER)
    drawing.text(image, "simulated", 80, 548, 15, drawing.TEAL)
    return image


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the real recordings")
    parser.add_argument("--map", default="grid-small")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--moments", type=int, default=4, help="sweeps of each seed, 4 s apart")
    parser.add_argument("--pictures", type=Path, help="folder for one PNG a sensor")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    args = parser.parse_args()
    if not args.data.is_dir():
        print(f"no real recordings at {args.data}: nothing to compare with; give their folder with --data")
        return 0
    results = {}
    # Heights: KITTI's setup page; PandaSet's from the ground in the cloud; the VLP-16's is not known.
    for real, height_m in ((real_vlp16, 1.9), (real_hdl64e, 1.73), (real_pandar64, 1.95)):
        theirs = real(args.data)
        ours = simulated(theirs.name, height_m, args.map, args.seeds, args.moments)
        results[theirs.name] = compared(theirs, ours)
        if args.pictures is not None:
            args.pictures.mkdir(parents=True, exist_ok=True)
            path = args.pictures / f"lidar-{theirs.name.lower()}.png"
            cv2.imwrite(
                str(path), cv2.cvtColor(picture(theirs, ours), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9]
            )
    table = Table("", *results)
    for row in next(iter(results.values())):
        table.add_row(row, *(f"{result[row]:.3f}" for result in results.values()))
    Console().print(table)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        report = {"map": args.map, "seeds": args.seeds, "moments": args.moments, "sensors": results}
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
