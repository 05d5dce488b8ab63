"""The whole recipe in small: every step runs, its cost is said first, and what is done is not done again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from planning.checkpoint import load_checkpoint
from planning.network import DrivingNetwork
from sim.config import ConfigError, load_config
from sim.stages import REPORT, RecipeConfig, measured_rate, run_stage
from sim.train import TrainConfig
from sim.train_distill import TrainDistillConfig
from sim.train_fuse import TrainFuseConfig
from sim.train_perception import TrainPerceptionConfig

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
QUIET = Console(quiet=True)
# The smoke recipe, shorter still.
STEPS = {
    "perception": ("perception.total_frames=16", "perception.checkpoint_every=2", "frames.envs=4", "evaluation_frames=0"),
    "expert": ("num_envs=4", "ppo.total_steps=64", "ppo.rollout_steps=8", "ppo.minibatch_size=16", "evaluation_episodes=1"),
    "distill": ("perception.total_frames=16", "frames.envs=4", "evaluation_episodes=1", "evaluation_max_steps=10"),
    "fuse": ("training.rounds=1", "training.steps=2", "frames.envs=4", "frames.moments=10", "first_shards=1", "validation_shards=0",
             "evaluation_episodes=1", "evaluation_max_steps=10"),
    "finetune": ("num_envs=2", "ppo.total_steps=64", "ppo.rollout_steps=8", "ppo.minibatch_size=16", "ppo.chunk_size=16",
                 "evaluation_episodes=1"),
}  # fmt: skip


def short_recipe(folder: Path) -> Path:
    recipe = load_config(RecipeConfig, CONFIGS / "smoke-all.toml", [])
    lines = ['stage = "all"', "threads = 1"]
    for step in recipe.steps:
        text = json.dumps([*step.overrides, *STEPS[step.name]])
        lines += ["[[steps]]", f'name = "{step.name}"', f'config = "{CONFIGS / step.config}"', f"overrides = {text}"]
    path = folder / "short-all.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_the_recipes_name_all_stages_in_their_order() -> None:
    for name in ("all", "smoke-all"):
        recipe = load_config(RecipeConfig, CONFIGS / f"{name}.toml", [])
        assert [step.name for step in recipe.steps] == list(STEPS)
        for step in recipe.steps:
            assert (CONFIGS / step.config).is_file()


def test_all_steps_run_and_what_is_done_is_not_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = short_recipe(tmp_path), tmp_path / "run"
    report = run_stage(path, [], out, False, QUIET)
    # a piece that only measures what the whole will cost says nothing of its own
    assert capsys.readouterr() == ("", "")
    assert report["perception_frames"] == report["distill_frames"] == 16
    assert report["expert_env_steps"] == report["finetune_env_steps"] == 64
    assert isinstance(load_checkpoint(report["finetune_checkpoint"]).network, DrivingNetwork)
    with pytest.raises(ConfigError, match="already holds steps of a recipe; add --resume"):
        run_stage(path, [], out, False, QUIET)
    written = {name: (out / name / "latest.safetensors").stat().st_mtime_ns for name in STEPS}
    (out / "finetune" / REPORT).unlink()
    again = run_stage(path, [], out, True, QUIET)
    assert again["distill_frames"] == 16
    for name in ("perception", "expert", "distill"):
        assert (out / name / "latest.safetensors").stat().st_mtime_ns == written[name]
    assert (out / "finetune" / REPORT).exists()


def test_the_cost_is_measured_on_the_run_s_own_amount() -> None:
    config = load_config(TrainPerceptionConfig, CONFIGS / "smoke-perception.toml", ["frames.warm_up_ticks=5"])
    total, unit, rate = measured_rate(config)
    assert (total, unit) == (480, "frames")
    assert 0 < rate < 1e5


def test_what_an_earlier_step_has_yet_to_leave_is_not_needed_to_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TrainDistillConfig | TrainFuseConfig] = []

    def ran(config: TrainDistillConfig | TrainFuseConfig, *_: object) -> dict[str, float]:
        seen.append(config)
        return {"seconds": 1.0 + len(seen), "collect_seconds": 1.0, "learn_seconds": 1.0}

    monkeypatch.setattr("sim.stages.distill_stage", ran)
    monkeypatch.setattr("sim.stages.fuse_stage", ran)
    missing = [f"expert={tmp_path / 'expert.safetensors'}", f"start_from={tmp_path / 'run'}"]
    measured_rate(load_config(TrainDistillConfig, CONFIGS / "smoke-distill.toml", missing))
    measured_rate(load_config(TrainFuseConfig, CONFIGS / "smoke-fuse.toml", missing))
    assert len(seen) == 5
    assert all(config.expert == "rules" and config.start_from is None for config in seen)


def test_a_privileged_run_that_begins_with_a_network_to_come_is_measured(tmp_path: Path) -> None:
    short = ["num_envs=2", "ppo.rollout_steps=8", "ppo.minibatch_size=16", "ppo.chunk_size=16", "threads=1"]
    given = f"start_from={tmp_path / 'nothing.safetensors'}"
    total, unit, rate = measured_rate(load_config(TrainConfig, CONFIGS / "smoke-expert.toml", [*short, given]))
    assert (total, unit) == (65536, "steps")
    assert rate > 0


def test_what_a_chapter_costs_and_what_a_step_costs_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds for a chapter's towns, half a second a step, and twenty once, which the estimate leaves out."""
    calls = []

    def took(config: TrainPerceptionConfig, *_: object) -> dict[str, float]:
        steps = config.perception.total_frames // config.frames.envs
        calls.append(steps)
        return {"seconds": 2.0 + 0.5 * steps + (20.0 if len(calls) == 1 else 0.0)}

    monkeypatch.setattr("sim.stages.train_stage", took)
    short = ["perception.total_frames=3200", "perception.checkpoint_every=40", "frames.envs=32"]
    total, unit, rate = measured_rate(load_config(TrainPerceptionConfig, CONFIGS / "perception.toml", short))
    assert (total, unit) == (3200, "frames")
    assert total / rate == pytest.approx(100 * 0.5 + 3 * 2.0)


def test_a_recipe_without_steps_or_with_a_strange_name_is_said(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('stage = "all"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="steps"):
        run_stage(path, [], tmp_path / "run", False, QUIET)
    path.write_text('stage = "all"\n[[steps]]\nname = "../up"\nconfig = "x.toml"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="name"):
        run_stage(path, [], tmp_path / "run", False, QUIET)
    path.write_text('stage = "all"\n[[steps]]\nname = "one"\nconfig = "bad.toml"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="no stage 'all'; there are"):
        run_stage(path, [], tmp_path / "run", False, QUIET)
