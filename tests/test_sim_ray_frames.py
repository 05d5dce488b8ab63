"""Frames that a Ray cluster renders are those of one process, chapter after chapter, and a training ends with the same weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from planning.checkpoint import read_tensors
from sim.config import load_config
from sim.train_perception import STATE, TrainPerceptionConfig, train_stage

pytest.importorskip("ray", reason="the extra `ray` is not installed")

ROOT = Path(__file__).resolve().parent.parent
SHORT = (
    "perception.total_frames=16", "perception.checkpoint_every=2", "frames.envs=4", "frames.warm_up_ticks=5",
    "evaluation_frames=0", "threads=1",
)  # fmt: skip
# In a process of its own, because Ray leaves threads and warnings behind.
BOTH = """
import hashlib, json, sys
from pathlib import Path
from rich.console import Console
from perception.points import BevGrid
from sim.config import load_config
from sim.evaluation.ray_cluster import connected
from sim.labelled_frames import DrivenFrames, FramesConfig
from sim.ray_frames import RayFrames
from sim.sensors.rig import rig
from sim.train_perception import TrainPerceptionConfig, train_stage

def digest(source):
    found = []
    for chapter in (0, 1):
        source.begin(chapter)
        for _ in range(2):
            f = source.next()
            arrays = [*f.observation.values(), f.bev, f.boxes, *f.depth.values(), *f.semantic.values(), f.light, f.lane]
            assert all(a.flags.writeable for a in arrays)
            found.append(hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest())
    return found

frames = FramesConfig(towns=("grid-small:1", "grid-small:2", "town:1"), towns_at_once=2, envs=4, warm_up_ticks=10)
local = DrivenFrames(frames, rig("smoke"), BevGrid(), 0, "train")
with connected("local") as ray:
    theirs = digest(RayFrames(ray, local, 2))
print(json.dumps([digest(local), theirs]))
config = load_config(TrainPerceptionConfig, Path(sys.argv[1]), [*json.loads(sys.argv[2]), "ray=local"])
train_stage(config, Path(sys.argv[3]), False, Console(quiet=True))
"""


def test_a_cluster_renders_the_same_bytes_and_a_training_ends_the_same(tmp_path: Path) -> None:
    toml = ROOT / "configs" / "smoke-perception.toml"
    command = [sys.executable, "-c", BOTH, str(toml), json.dumps(SHORT), str(tmp_path / "ray")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    ours, theirs = json.loads(done.stdout.splitlines()[0])
    assert ours == theirs
    assert len(set(ours)) == 4
    train_stage(load_config(TrainPerceptionConfig, toml, SHORT), tmp_path / "alone", False, Console(quiet=True))
    states = [read_tensors(tmp_path / who / STATE)[1] for who in ("ray", "alone")]
    assert states[0].keys() == states[1].keys()
    assert all(states[0][name].equal(states[1][name]) for name in states[0])
