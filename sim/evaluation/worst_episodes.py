"""The worst episodes of a run, driven again with the car's sensors, so that a log and a video of each can be looked at.

Knows jobs, reports and the verb `drive`; knows nothing about scores beyond their order. Sensors change nothing in the world, so
what is kept is what was scored.
"""

from __future__ import annotations

import base64
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sim.drive import RULE_BASED, DriveConfig, drive
from sim.evaluation.episode_run import Job, observation_for
from sim.evaluation.results import Report, worst_first
from sim.logs.reader import open_log
from sim.roads.driving_map import load_map
from sim.world import TICK_S

FOLDER, LOG, VIDEO = "worst", "episode.mcap", "episode.mp4"
PICTURES = 120  # of a camera in the report, at most, evenly over the episode
QUALITY = 70


def keep_worst(job: Job, reports: Sequence[Report], count: int) -> list[str]:
    """Leave log and video of the `count` worst episodes in the run's folder, and of no others; returns their ids, worst first.

    What an earlier call left is kept.
    """
    worst = [report["id"] for report in worst_first(reports)[:count]]
    folder = Path(job.out) / FOLDER
    for old in sorted(folder.iterdir()) if folder.is_dir() else []:
        if old.name not in worst:
            shutil.rmtree(old)
    for name in worst:
        if not (folder / name).is_dir():
            _film(job, job.suite.index_of(name), folder / name)
    return worst


def _film(job: Job, index: int, folder: Path) -> None:
    """Drive one episode again into a folder, which is there whole or not at all."""
    looks = job.policy not in RULE_BASED and observation_for(job.policy) == "privileged"
    observation = "both" if looks else "sensors"
    config = job.env_config(index, observation)
    partial = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    report = drive(
        DriveConfig(env=config, policy=job.policy, without=job.without, seed=job.suite.episodes[index].seed),
        record=partial, video=partial / VIDEO, driving_map=load_map(config.map, seed=config.scenery_seed),
    )  # fmt: skip
    log = report.logs[0]
    assert log is not None
    log.rename(partial / LOG)
    partial.rename(folder)


def camera_pictures(run: Path, name: str) -> dict[str, Any] | None:
    """What the first camera saw in an episode that was kept: JPEGs in base64, and how many seconds they are apart."""
    path = run / FOLDER / name / LOG
    if not path.is_file():
        return None
    with open_log(path) as log:
        every = math.ceil((round(log.duration_s / TICK_S) + 1) / PICTURES)
        frames = [next(iter(step.frame.cameras.values()), None) for step in log.steps() if step.tick % every == 0]
    return {"period_s": TICK_S * every, "pictures": [_jpeg(frame.image) for frame in frames if frame]}


def _jpeg(image: NDArray[np.uint8]) -> str:
    """An RGB picture as JPEG in base64."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return base64.b64encode(data.tobytes()).decode()
