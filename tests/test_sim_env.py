"""The environment keeps Gymnasium's and Stable-Baselines3's contracts, and the same seed gives the same bytes."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import sim.env  # noqa: F401 (registers the environment)
from planning.route_follower import RouteFollower
from sim.config import ConfigError
from sim.drive_batch import DriveBatch, EnvConfig
from sim.env import ENV_ID, DriveEnv, DriveVectorEnv
from sim.sensors.rig import rig

SMALL = {"rig": "smoke", "max_steps": 40}


def drive_bytes(env: DriveVectorEnv, seed: int, slot: int, steps: int) -> str:
    """SHA-256 of everything that one slot observed and earned over some steps with actions that depend on the step."""
    digest = hashlib.sha256()
    observation, _ = env.reset(seed=[seed + (e - slot) * 7 for e in range(env.num_envs)])
    for k in range(steps):
        for key in sorted(observation):
            digest.update(key.encode() + observation[key][slot].tobytes())
        action = np.tile(np.array([0.2 * np.sin(k), 0.6], np.float32), (env.num_envs, 1))
        observation, reward, terminated, truncated, _ = env.step(action)
        digest.update(np.array([reward[slot], terminated[slot], truncated[slot]], np.float64).tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def reference_bytes() -> str:
    return drive_bytes(DriveVectorEnv(1, **SMALL, observation="both"), seed=100, slot=0, steps=60)


def test_one_environment_equals_a_slot_of_sixteen(reference_bytes: str) -> None:
    batch = DriveVectorEnv(16, **SMALL, observation="both")
    assert drive_bytes(batch, seed=100, slot=5, steps=60) == reference_bytes


@pytest.mark.parametrize("threads", [1, 2])
def test_another_process_with_other_threads_gives_the_same_bytes(reference_bytes: str, threads: int) -> None:
    program = (
        f"import sys; sys.path.insert(0, 'tests'); import numba; numba.set_num_threads({threads})\n"
        "from test_sim_env import SMALL, DriveVectorEnv, drive_bytes\n"
        "print(drive_bytes(DriveVectorEnv(4, **SMALL, observation='both'), seed=100, slot=2, steps=60))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == reference_bytes


def test_another_seed_gives_other_bytes(reference_bytes: str) -> None:
    assert drive_bytes(DriveVectorEnv(1, **SMALL, observation="both"), 101, 0, 60) != reference_bytes


@pytest.mark.parametrize("observation", ["sensors", "both", "privileged"])
def test_gymnasiums_checker_passes(observation: str) -> None:
    check_env(gymnasium.make(ENV_ID, rig="small", observation=observation, max_steps=30).unwrapped)


@pytest.mark.parametrize("observation", ["sensors", "both", "privileged"])
def test_stable_baselines3_checker_passes(observation: str) -> None:
    sb3_check_env(DriveEnv(rig="small", observation=observation, max_steps=30), warn=True)


def test_make_vec_gives_the_native_batch_with_the_spaces_of_make() -> None:
    vector = gymnasium.make_vec(ENV_ID, num_envs=3, **SMALL)
    single = gymnasium.make(ENV_ID, **SMALL)
    assert isinstance(vector, VectorEnv)
    assert isinstance(vector.unwrapped, DriveVectorEnv)
    assert vector.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert vector.single_observation_space == single.observation_space
    observation, _ = vector.reset(seed=0)
    assert vector.observation_space.contains(observation)


def test_a_finished_environment_starts_again_in_the_same_step() -> None:
    env = DriveVectorEnv(2, rig="smoke", max_steps=5, observation="both")
    env.reset(seed=3)
    still = np.array([[0.0, -1.0]] * 2, np.float32)
    for _ in range(4):
        observation, _, terminated, truncated, info = env.step(still)
        assert not (terminated | truncated).any()
        assert "final_obs" not in info
    observation, _, terminated, truncated, info = env.step(still)
    assert truncated.all()
    assert not terminated.any()
    assert info["_final_obs"].all()
    assert info["final_info"]["infractions"][0].keys() == {"timeout"}
    for e in range(2):
        assert env.single_observation_space.contains(info["final_obs"][e])
        assert info["final_obs"][e]["camera_wide"].tobytes() != observation["camera_wide"][e].tobytes()
    assert (env.batch.world.state.tick == 0).all()
    assert (env.batch.world.state.episode == 1).all()


def test_reset_without_a_seed_goes_on_to_the_next_episode_and_with_one_returns() -> None:
    env = DriveEnv(**SMALL)
    first, _ = env.reset(seed=5)
    second, _ = env.reset()
    again, _ = env.reset(seed=5)
    assert first["camera_wide"].tobytes() == again["camera_wide"].tobytes()
    assert first["camera_wide"].tobytes() != second["camera_wide"].tobytes()


def test_environments_whose_seed_is_left_open_get_one_each() -> None:
    env = DriveVectorEnv(3, observation="privileged")
    observation, _ = env.reset(seed=[None, 7, None])
    seeds = env.batch.world.state.seed.tolist()
    assert seeds[1] == 7
    assert len(set(seeds)) == 3
    again, _ = env.reset(seed=seeds)
    assert again.tobytes() == observation.tobytes()


def test_an_infraction_that_ends_nothing_is_no_success_in_the_end() -> None:
    env = DriveEnv(
        observation="privileged", end_on_infraction=False, world={"route_min_m": 40, "route_max_m": 60, "agents": 1}
    )
    step, driver = env.batch.world.step, RouteFollower()

    def arrives(seed: int, red_light_at: int) -> tuple[bool, bool]:
        def with_red_light(actions: np.ndarray) -> None:
            step(actions)
            if env.batch.world.state.tick[0] == red_light_at:
                env.batch.world.events.red_light[0] = 1

        env.batch.world.step = with_red_light  # type: ignore[method-assign]
        observation, _ = env.reset(seed=seed)
        kept = env.batch.save(0)
        while True:
            observation, _, terminated, truncated, info = env.step(driver.act(observation, env.batch.situation)[0])
            if terminated or truncated:
                assert not info["infractions"]
                env.batch.go_back({0: kept})
                return bool(info["is_success"]), env.batch.is_success(0)

    assert arrives(0, -1) == (True, True)
    assert arrives(0, 5) == (False, True)  # gone back to before it


def test_reset_mask_touches_only_what_it_names() -> None:
    env = DriveVectorEnv(3, **SMALL)
    env.reset(seed=0)
    for _ in range(5):
        env.step(np.zeros((3, 2), np.float32))
    before = env.batch.world.state.x_m.copy()
    env.reset(seed=50, options={"reset_mask": np.array([False, True, False])})
    assert (env.batch.world.state.tick == [5, 0, 5]).all()
    assert (env.batch.world.state.x_m[[0, 2]] == before[[0, 2]]).all()


def test_wrong_actions_are_refused() -> None:
    env = DriveEnv(observation="privileged")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="finite"):
        env.step(np.array([np.nan, 0.0], np.float32))
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros(3, np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rigg": "small"}, "did you mean 'rig'"),
        ({"rig": "huge"}, "rig"),
        ({"max_steps": 0}, "max_steps"),
        ({"world": {"agents": -3}}, r"world\.agents"),
    ],
)
def test_wrong_options_are_one_clear_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        DriveEnv(**options)
    assert "\n" not in str(caught.value)


def test_render_gives_a_picture() -> None:
    env = DriveEnv(render_mode="rgb_array", **SMALL)
    env.reset(seed=0)
    picture = env.render()
    assert picture is not None
    assert picture.shape == (720, 1280, 3)
    assert picture.std() > 10


def test_progress_is_rewarded_and_a_crash_is_punished() -> None:
    env = DriveEnv(observation="privileged")
    env.reset(seed=0)
    total = sum(float(env.step(np.array([0.0, 0.3], np.float32))[1]) for _ in range(20))
    assert total > 0.0
    for _ in range(400):
        _, reward, terminated, _, info = env.step(np.array([1.0, 1.0], np.float32))
        if terminated:
            assert float(reward) < 0.0
            assert info["infractions"]
            assert not info["is_success"]
            return
    pytest.fail("full lock and full throttle must end an episode")


def test_frames_hold_gnss_and_imu_where_the_rig_has_them() -> None:
    batch = DriveBatch(EnvConfig.of(rig="smoke", world={"agents": 2}), 1)
    batch.reset(np.ones(1, np.bool_), np.array([5], np.uint64), np.zeros(1, np.int64))
    places, fixes = [], []
    for _ in range(20):
        batch.step(np.array([[0.0, 0.6]], np.float32))
        frame = batch.frame(0)
        assert frame.gnss is not None
        assert frame.imu is not None
        assert frame.ego is not None
        assert frame.ego.world_from_ego is not None
        assert batch.frame(0).gnss is frame.gnss, "asked again at the same tick it says the same"
        assert frame.imu.timestamp_us[-1] == frame.timestamp_us == frame.gnss.timestamp_us
        assert 9 < np.linalg.norm(frame.imu.acceleration_mps2, axis=1).min() < 12
        places.append(frame.ego.world_from_ego[:2, 3])
        fixes.append([frame.gnss.latitude_deg, frame.gnss.longitude_deg])
    # A degree of latitude is about 111 km long; the bias of the receiver stays nearly the same within two seconds.
    moved, seen = places[-1] - places[0], np.subtract(fixes[-1], fixes[0])
    north, east = 111_200 * seen[0], 111_200 * seen[1] * np.cos(np.radians(fixes[0][0]))
    assert np.hypot(*moved) > 2
    np.testing.assert_allclose([east, north], moved, atol=0.8)
    bare = rig("smoke").model_copy(update={"gnss": None, "imu": None})
    without = DriveBatch(EnvConfig.of(rig=bare.model_dump(), world={"agents": 2}), 1)
    without.reset(np.ones(1, np.bool_), np.array([5], np.uint64), np.zeros(1, np.int64))
    assert (without.frame(0).gnss, without.frame(0).imu) == (None, None)


def test_a_driver_who_goes_by_the_situation_drives_the_same_whether_or_not_anything_is_observed() -> None:
    """In `blind` batches the privileged vector is left as it is; the world and what is scored are the same."""
    batches = [
        DriveBatch(EnvConfig.of(observation="privileged", world={"agents": 8}), 2, blind=b) for b in (False, True)
    ]
    seen, unseen = (_driven(batch) for batch in batches)
    for name, array in seen.items():
        np.testing.assert_array_equal(array, unseen[name], err_msg=name)
    assert batches[0].observation["privileged"].any()
    assert not batches[1].observation["privileged"].any()


def _driven(batch: DriveBatch) -> dict[str, np.ndarray]:
    """What the world and the reward are after 40 ticks of the expert."""
    batch.reset(np.ones(2, np.bool_), np.array([5, 6], np.uint64), np.zeros(2, np.int64))
    driver, rewards = RouteFollower(), []
    for _ in range(40):
        batch.step(driver.act(batch.observation, batch.situation))
        rewards.append(batch.reward.copy())
        assert batch.frame(0).gnss is None  # sensors are not simulated, these two neither
    state = batch.world.state
    return {"x": state.x_m.copy(), "y": state.y_m.copy(), "yaw": state.yaw_rad.copy(), "reward": np.array(rewards)}
