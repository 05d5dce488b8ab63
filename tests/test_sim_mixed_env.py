"""Several maps behind one vector environment: each slot is what it would be on its map alone."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode

from sim.config import ConfigError
from sim.drive_batch import DriveBatch, EnvConfig
from sim.env import DriveVectorEnv
from sim.mixed_env import MixedVectorEnv, mixed_batch
from sim.roads.driving_map import DrivingMap, load_map
from sim.scenarios.catalogue import Scenario, ScenarioName
from sim.scenarios.mixture import FREE, Mixture
from sim.train import TrainConfig, training_env
from sim.world import WorldConfig

CONFIG = EnvConfig.of(observation="privileged", max_steps=25, world={"agents": 12})
TOWNS, EACH, SHARE = ("grid-small", "radial"), 3, 0.5


@pytest.fixture(scope="module")
def mixed() -> MixedVectorEnv:
    return MixedVectorEnv([mixed_batch(CONFIG, EACH, town, SHARE) for town in TOWNS])


def actions_at(step: int, envs: int) -> np.ndarray:
    return np.tile(np.array([0.1 * np.sin(step), 0.7], np.float32), (envs, 1))


def test_every_slot_is_that_of_its_map_alone_through_ends_of_episodes(mixed: MixedVectorEnv) -> None:
    alone = [DriveVectorEnv(batch=mixed_batch(CONFIG, EACH, town, SHARE)) for town in TOWNS]
    together, _ = mixed.reset(seed=40)
    apart = [env.reset(seed=40 + EACH * k)[0] for k, env in enumerate(alone)]
    finished = 0
    for step in range(60):
        assert np.concatenate(apart).tobytes() == together.tobytes()
        together, *outcome, info = mixed.step(actions_at(step, 2 * EACH))
        steps = [env.step(actions_at(step, EACH)) for env in alone]
        apart = [each[0] for each in steps]
        for k in range(3):
            assert np.concatenate([each[k + 1] for each in steps]).tobytes() == outcome[k].tobytes()
        for k, (*_, own) in enumerate(steps):
            for e in range(EACH):
                slot = EACH * k + e
                assert info["route_completion"][slot] == own["route_completion"][e]
                if "final_obs" in own and own["_final_obs"][e]:
                    finished += 1
                    assert info["_final_obs"][slot]
                    assert info["final_obs"][slot].tobytes() == own["final_obs"][e].tobytes()
                    assert info["final_info"]["infractions"][slot] == own["final_info"]["infractions"][e]
                    assert info["final_info"]["is_success"][slot] == own["final_info"]["is_success"][e]
                else:
                    assert "_final_obs" not in info or not info["_final_obs"][slot]
    assert finished >= 2 * EACH


def test_it_resets_in_the_same_step_and_the_same_seed_gives_the_same_bytes(mixed: MixedVectorEnv) -> None:
    assert mixed.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert mixed.num_envs == 2 * EACH
    runs = []
    for _ in range(2):
        observation, _ = mixed.reset(seed=7)
        assert mixed.observation_space.contains(observation)
        rows = [observation.copy()]
        for step in range(30):
            rows.append(mixed.step(actions_at(step, mixed.num_envs))[0].copy())
        runs.append(np.stack(rows).tobytes())
    assert runs[0] == runs[1]
    assert np.stack(rows).tobytes() != np.stack([mixed.reset(seed=8)[0]] * len(rows)).tobytes()


def test_a_mask_resets_only_what_it_names(mixed: MixedVectorEnv) -> None:
    mixed.reset(seed=0)
    for step in range(4):
        mixed.step(actions_at(step, mixed.num_envs))
    mask = np.zeros(mixed.num_envs, np.bool_)
    mask[EACH] = True
    mixed.reset(seed=50, options={"reset_mask": mask})
    ticks = np.concatenate([part.batch.world.state.tick for part in mixed.parts])
    assert (ticks == np.where(mask, 0, 4)).all()
    seeds = np.concatenate([part.batch.world.state.seed for part in mixed.parts])
    assert seeds[EACH] == 50 + EACH


def test_reset_says_what_it_says_of_each_map_alone(mixed: MixedVectorEnv) -> None:
    alone = [DriveVectorEnv(batch=mixed_batch(CONFIG, EACH, town, SHARE)) for town in TOWNS]
    apart = [env.reset(seed=3 + EACH * k) for k, env in enumerate(alone)]
    together, info = mixed.reset(seed=np.int64(3))  # type: ignore[arg-type]
    assert together.tobytes() == np.concatenate([observation for observation, _ in apart]).tobytes()
    assert info.keys() == apart[0][1].keys()
    for key, values in info.items():
        assert values.tobytes() == np.concatenate([own[key] for _, own in apart]).tobytes(), key
    mask = np.zeros(mixed.num_envs, np.bool_)
    mask[0] = True
    assert len(mixed.reset(options={"reset_mask": mask})[1]["command"]) == mixed.num_envs


def test_what_does_not_fit_is_refused(mixed: MixedVectorEnv) -> None:
    with pytest.raises(ValueError, match="shape"):
        mixed.step(np.zeros((1, 2), np.float32))
    with pytest.raises(ValueError, match="6 of them, got 2"):
        mixed.reset(seed=[1, 2])
    with pytest.raises(ValueError, match="reset_mask"):
        mixed.reset(options={"reset_mask": np.zeros(6, np.bool_)})
    with pytest.raises(ValueError, match=r"'weather'.*reset_mask"):
        mixed.reset(options={"weather": "rain"})
    for seed in (-1, True, [0, 1, 2, 3, 4, -5]):
        with pytest.raises(ValueError, match="seed must be an integer from 0"):
            mixed.reset(seed=seed)
    with pytest.raises(ConfigError, match="at least one"):
        MixedVectorEnv([])
    other = DriveBatch(CONFIG, 1)
    other.observation_space = Box(-1.0, 1.0, (7,), np.float32)
    with pytest.raises(ConfigError, match="same observation"):
        MixedVectorEnv([mixed.parts[0].batch, other])


def test_shares_are_kept_and_every_family_comes_up(town: DrivingMap) -> None:
    mixture = Mixture(town, WorldConfig(), 0.5)
    placements = [mixture.place(seed, 1) for seed in range(400)]
    assert placements == [mixture.place(seed, 1) for seed in range(400)]
    free = sum(placement == FREE for placement in placements)
    assert 150 < free < 250
    assert {"following", "unprotected_left", "red_light", "occluded_pedestrian"} <= set(mixture.names)
    assert all(Mixture(town, WorldConfig(), 0.0).place(seed, 0) == FREE for seed in range(20))
    assert all(Mixture(town, WorldConfig(), 1.0).place(seed, 0) != FREE for seed in range(20))


def test_hard_families_come_up_more_often(town: DrivingMap) -> None:
    hard: tuple[ScenarioName, ...] = ("cut_out", "red_light")
    alone = [Scenario(name, town, WorldConfig()) for name in hard]
    even, uneven = Mixture(town, WorldConfig(), 1.0), Mixture(town, WorldConfig(), 1.0, hard, 4)
    assert uneven.names == even.names
    families = len(even.names)

    def share_of_hard(mixture: Mixture) -> float:
        return float(np.mean([mixture.place(s, 0) in [scenario.place(s, 0) for scenario in alone] for s in range(300)]))

    for mixture, expected in ((even, 2 / families), (uneven, 8 / (families + 6))):
        assert abs(share_of_hard(mixture) - expected) < 4 * np.sqrt(expected * (1 - expected) / 300)
    assert share_of_hard(uneven) > 1.8 * share_of_hard(even)


def test_a_family_without_a_place_on_a_map_is_left_out() -> None:
    names = Mixture(load_map("radial"), WorldConfig(), 1.0).names
    assert "roundabout" in names
    assert "road_works" not in names


def test_a_training_run_stages_hard_families_more_often() -> None:
    values = {"num_envs": 40, "maps": ["grid-small"], "scenario_share": 1.0, "env": CONFIG.model_dump()}
    alone = Scenario("cut_out", load_map("grid-small"), WorldConfig(agents=12))

    def staged(**more: object) -> int:
        env = training_env(TrainConfig.model_validate({**values, **more}))
        env.reset(seed=5)
        return sum(p == alone.place(5 + e, 0) for e, p in enumerate(env.parts[0].batch.world.placements))

    often = staged(hard_scenarios=["cut_out"], hard_times=100)
    assert often > 30 > 12 > staged()
