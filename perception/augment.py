"""Changes of labelled frames in training: what a network must not care about, and what it must do without.

Everything is drawn from the generator that is handed in. Knows numpy; knows nothing about networks. The camera's own jitter is
not here: whoever renders moves the camera, so that labels follow by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from perception.labels import Affordance, BoxField, LabelledFrames
from perception.sensors import CameraCalibration, EgoField

_MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])


class AugmentConfig(BaseModel):
    """How often and how much; 0 turns each off."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    flip: float = Field(0.5, ge=0, le=1, description="share of frames seen in a mirror, everything together")
    color: float = Field(0.3, ge=0, le=1, description="spread of contrast, brightness, gamma and of each channel")
    beam_dropout: float = Field(0.3, ge=0, le=1, description="share of frames that lose some beams of the LiDAR")
    point_dropout: float = Field(0.2, ge=0, le=0.9, description="most points that a frame loses, as a share")
    intensity: float = Field(0.5, ge=0, le=1, description="share of frames whose intensities are scaled or gone")
    silent_camera: float = Field(0.1, ge=0, le=1, description="share of frames without any picture")
    silent_lidar: float = Field(0.1, ge=0, le=1, description="of frames with a picture, share without a sweep")
    silent_route: float = Field(0.2, ge=0, le=1, description="share of frames without a route")


def augment(
    frames: LabelledFrames, config: AugmentConfig, partners: Mapping[str, str], rng: np.random.Generator
) -> None:
    """Change the frames in place. partners: as `mirror_partners`."""
    n = len(frames)
    flipped = rng.random(n) < config.flip
    draws = rng.random((n, 3))
    if config.flip:
        mirror(frames, flipped, partners)
    if config.color:
        for name in frames.depth:
            _recolor(frames.observation[name], config.color, rng)
    if "points" in frames.observation:
        _thin_points(frames, config, rng)
    camera = draws[:, 0] < config.silent_camera
    lidar = ~camera & (draws[:, 1] < config.silent_lidar)
    for name in frames.depth:
        frames.observation[name][camera] = 0
    if "points" in frames.observation:
        frames.observation["points"][lidar] = 0
        frames.observation["point_count"][lidar] = 0
    if "route" in frames.observation:
        frames.observation["route"][draws[:, 2] < config.silent_route] = 0


def mirror_partners(cameras: Mapping[str, CameraCalibration]) -> dict[str, str]:
    """For each camera the one that sees the mirrored scene, often itself.

    Raises:
        ValueError: a camera has none, so frames cannot be mirrored.
    """
    partners = {}
    for name, camera in cameras.items():
        found = [other for other, c in cameras.items() if _is_mirror(camera, c)]
        if not found:
            raise ValueError(
                f"camera {name} has no partner in a mirror; set augment.flip = 0, or mount it symmetrically"
            )
        partners[name] = found[0]
    return partners


def mirror(frames: LabelledFrames, which: NDArray[np.bool_], partners: Mapping[str, str]) -> None:
    """Turn left and right in the frames `which` (B,), in place: pictures, points, ego, route and all labels."""
    o = frames.observation
    for group in (o, frames.depth, frames.semantic):
        old = {name: group[name][which] for name in partners if name in group}
        for name, values in old.items():
            group[partners[name]][which] = values[:, :, ::-1]
    if "points" in o:
        points = o["points"].reshape(len(frames), -1, 4)
        points[which, :, 1] *= -1
    if "ego" in o:
        for column in (EgoField.YAW_RATE_RADPS, EgoField.LAST_STEER):
            o["ego"][which, column] *= -1
    if "route" in o:
        o["route"].reshape(len(frames), -1, 2)[which, :, 1] *= -1
    frames.bev[which] = frames.bev[which][:, :, ::-1]
    for field in (BoxField.Y, BoxField.YAW, BoxField.VY):
        frames.boxes[which, :, field] *= -1
    frames.lane[which] *= -1
    if frames.expert is not None:
        frames.expert[which, 0] = frames.expert[which, 0, ::-1]  # steering to the left becomes steering to the right
    if frames.affordances is not None:
        frames.affordances[which, Affordance.SWING] *= -1


def _is_mirror(a: CameraCalibration, b: CameraCalibration) -> bool:
    """Whether b, seen in a mirror beside the car, is a: pose mirrored, and the picture turned left to right."""
    turned = np.diag([-1.0, 1.0, 1.0, 1.0])
    pose = _MIRROR @ a.ego_from_camera @ turned
    k, other = a.intrinsics, b.intrinsics
    axis = a.width_px - 1 - k[0, 2]
    same_size = (a.width_px, a.height_px) == (b.width_px, b.height_px)
    turned_lens = a.distortion.copy()
    if a.distortion_model == "brown_conrady":
        turned_lens[3] *= -1  # p2 bends to the left or to the right
    same_lens = a.distortion_model == b.distortion_model and np.array_equal(turned_lens, b.distortion)
    focal = np.allclose(
        [k[0, 0], k[1, 1], axis, k[1, 2]], [other[0, 0], other[1, 1], other[0, 2], other[1, 2]], atol=1e-3
    )
    return bool(same_size and same_lens and focal and np.allclose(pose, b.ego_from_camera, atol=1e-3))


def _recolor(pictures: NDArray[np.uint8], spread: float, rng: np.random.Generator) -> None:
    """Another exposure and white balance for each picture (B, H, W, 3), by a table of grey levels, in place."""
    levels = np.linspace(0.0, 1.0, 256)
    for picture in pictures:
        gamma, gain = np.exp(spread * rng.uniform(-1, 1, 2))
        shift = 0.3 * spread * rng.uniform(-1, 1)
        channels = np.exp(0.4 * spread * rng.uniform(-1, 1, 3))
        bent = (levels[:, None] ** gamma) * gain * channels + shift
        table = np.rint(np.clip(bent, 1 / 255, 1.0) * 255).astype(np.uint8)  # never black: that would mean silent
        for c in range(3):
            picture[..., c] = table[:, c][picture[..., c]]


def _thin_points(frames: LabelledFrames, config: AugmentConfig, rng: np.random.Generator) -> None:
    """Take beams and single points away and change intensities, in place; what stays keeps its order."""
    points = frames.observation["points"].reshape(len(frames), -1, 4)
    count = frames.observation["point_count"]
    for e in range(len(frames)):
        n = int(count[e, 0])
        kept = rng.random(n) >= config.point_dropout * rng.random()
        if rng.random() < config.beam_dropout:
            lost = rng.random(256) < rng.uniform(0.0, 0.6)
            kept &= ~lost[frames.beam[e, :n]]
        if rng.random() < config.intensity:
            factor = 0.0 if rng.random() < 0.3 else np.exp(rng.uniform(-1, 1))
            points[e, :n, 3] = np.minimum(points[e, :n, 3] * np.float32(factor), 1.0)
        rest = np.flatnonzero(kept)
        points[e, : len(rest)] = points[e, rest]
        frames.beam[e, : len(rest)] = frames.beam[e, rest]
        points[e, len(rest) : n] = 0
        count[e, 0] = len(rest)
