"""Configurations: what is said of a mistake names the key that a file has, what was given, and where it was given."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from sim.config import ConfigError, load_config
from sim.drive import DriveConfig
from sim.train import TrainConfig
from sim.train_fuse import TrainFuseConfig

CAMERA = '{ name = "front", width_px = 32, height_px = 16, horizontal_fov_deg = 60.0 }'


@pytest.mark.parametrize(
    ("override", "begins", "ends"),
    [
        ("env.rig=kity", "env.rig: input should be 'smoke'", "got 'kity'"),
        (f"env.rig.cameras=[{CAMERA.replace('32', '-1')}]", "env.rig.cameras.0.width_px: input", "got -1"),
        (
            f"env.rig.cameras=[{CAMERA.replace('width_px', 'width')}]",
            "env.rig.cameras.0.width_px: field required",
            "more)",
        ),
        (
            f"env.rig.cameras=[{CAMERA.replace(' }', ', width = 3 }')}]",
            "unknown key 'env.rig.cameras.0.width'; did you mean 'width_px'?",
            "",
        ),
        ("env.world.route_min_m=5000", "env.world: route_max_m must exceed", "got 5000.0 and 600.0"),
        ("env.world.agent=3", "unknown key 'env.world.agent'; did you mean 'agents'?", ""),
    ],
)
def test_a_mistake_names_the_key_and_what_was_given(override: str, begins: str, ends: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(DriveConfig, None, [override])
    assert str(caught.value).startswith(begins)
    assert str(caught.value).endswith(ends)


def test_a_file_is_named_for_its_own_mistakes_only(tmp_path: Path) -> None:
    file = tmp_path / "drive.toml"
    file.write_text("seed = 1\n")
    with pytest.raises(ConfigError, match=r"^seed: .*got 'x'"):
        load_config(DriveConfig, file, ["seed=x"])
    with pytest.raises(ConfigError, match=r"^env\.world: route_max_m"):
        load_config(DriveConfig, file, ["env.world.route_min_m=5000"])
    file.write_text("seed = -1\n")
    with pytest.raises(ConfigError, match=r"drive\.toml: seed: .*got -1"):
        load_config(DriveConfig, file, ["episodes=2"])


@pytest.mark.parametrize(
    ("model", "override", "said"),
    [
        (DriveConfig, "env.reward.end_penalty=inf", "env.reward.end_penalty: input should be a finite number, got inf"),
        (
            TrainConfig,
            "env.reward.lane_offset_s=inf",
            "env.reward.lane_offset_s: input should be a finite number, got inf",
        ),
        (TrainConfig, f"env.rig.cameras=[{CAMERA[:-2]}, mount = {{ x_m = nan }} }}]", "env.rig.cameras.0.mount.x_m: "),
        (TrainFuseConfig, "frames.world.route_min_m=inf", "frames.world.route_min_m: input should be less"),
    ],
)
def test_numbers_are_finite(model: type[BaseModel], override: str, said: str) -> None:
    """They are written as JSON, with each log and each checkpoint."""
    with pytest.raises(ConfigError) as caught:
        load_config(model, None, [override])
    assert str(caught.value).startswith(said)
