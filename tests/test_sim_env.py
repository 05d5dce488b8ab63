"""The environment keeps Gymnasium's and Stable-Baselines3's contracts, and the same seed gives the same bytes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import sim.env  # noqa: F401 (registers the environment)
from planning.route_follower import RouteFollower
from sim.config import ConfigError
from sim.drive_batch import DriveBatch, EnvConfig
from sim.env import ENV_ID, DriveEnv, DriveVectorEnv
from sim.episode import run_episodes
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


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True, "7"])
def test_seeds_that_are_none_are_named(seed: object) -> None:
    for env, given in (
        (DriveEnv(observation="privileged"), seed),
        (DriveVectorEnv(2, observation="privileged"), [3, seed]),
    ):
        with pytest.raises(ValueError, match="seed must be an integer from 0"):
            env.reset(seed=given)  # type: ignore[arg-type]
    same = DriveVectorEnv(2, observation="privileged")
    assert same.reset(seed=np.int64(5))[0].tobytes() == same.reset(seed=5)[0].tobytes()  # type: ignore[arg-type]


def test_who_forgets_to_reset_or_gives_an_option_nobody_knows_is_told() -> None:
    single, vector = DriveEnv(observation="privileged"), DriveVectorEnv(2, observation="privileged")
    with pytest.raises(ResetNeeded):
        single.step(np.zeros(2, np.float32))
    with pytest.raises(ResetNeeded):
        vector.step(np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="'weather'"):
        single.reset(options={"weather": "rain"})
    with pytest.raises(ValueError, match=r"'weather'.*reset_mask"):
        vector.reset(options={"weather": "rain"})
    with pytest.raises(ConfigError, match="render_mode 'human'"):
        DriveVectorEnv(2, render_mode="human")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"autoreset_mode 'never'.*NextStep"):
        DriveVectorEnv(2, autoreset_mode="never")


def test_with_autoreset_in_the_next_step_episodes_are_the_same_and_begin_a_step_later() -> None:
    config = {**SMALL, "max_steps": 5, "observation": "privileged"}
    same = DriveVectorEnv(2, **config)
    following = gymnasium.make_vec(ENV_ID, num_envs=2, autoreset_mode=AutoresetMode.NEXT_STEP, **config)
    action = np.full((2, 2), [0.0, 0.5], np.float32)
    first, _ = same.reset(seed=3)
    assert following.reset(seed=3)[0].tobytes() == first.tobytes()
    for _ in range(2):
        for k in range(5):
            one, other = same.step(action), following.step(action)
            assert one[3].all() == other[3].all() == (k == 4)
            assert one[1].tobytes() == other[1].tobytes()
        assert other[0].tobytes() == np.stack(one[4]["final_obs"]).tobytes()
        assert other[4]["is_success"].tolist() == one[4]["final_info"]["is_success"].tolist() == [False, False]
        begun = following.step(-action)
        assert begun[0].tobytes() == one[0].tobytes()
        assert not np.stack(begun[1:4]).any()
        assert not any(values.any() for name, values in begun[4]["reward_terms"].items() if name[0] != "_")
    wrapped = gymnasium.wrappers.vector.NormalizeObservation(following)
    assert wrapped.reset(seed=0)[0].shape == first.shape


def test_without_autoreset_it_is_for_reset_to_begin_anew() -> None:
    env = DriveVectorEnv(2, observation="privileged", max_steps=3, autoreset_mode=AutoresetMode.DISABLED)
    env.reset(seed=0)
    for _ in range(3):
        last = env.step(np.zeros((2, 2), np.float32))
    assert last[3].all()
    assert last[4]["infractions"][0].keys() == {"timeout"}
    assert (env.batch.world.state.tick == 3).all()
    env.reset(options={"reset_mask": last[3]})
    assert (env.batch.world.state.tick == 0).all()
    assert (env.batch.world.state.episode == 1).all()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_an_episode_that_ends_takes_nothing_from_the_infos_of_others(mode: AutoresetMode) -> None:
    env = DriveVectorEnv(2, observation="privileged", max_steps=40, end_on_infraction=False, autoreset_mode=mode)
    env.reset(seed=0)
    astray = np.array([[1.0, 0.6]] * 2, np.float32)  # by and by off the road
    for _ in range(5):
        env.step(astray)
    env.reset(options={"reset_mask": np.array([False, True])})
    while env.batch.world.state.tick[0] < 39:
        env.step(astray)
    *_, truncated, info = env.step(astray)
    assert truncated.tolist() == [True, False]
    assert info["_route_completion"].all()
    assert (info["route_completion"] == env.batch.route_completion()).all()
    assert info["_infractions"].all()
    assert info["infractions"][0] == env.batch.episode_infractions(0)
    assert info["infractions"][1] == env.batch.infractions(1) != {}
    assert info["_checks"].tolist() == [True, False]


def test_an_episode_that_has_just_begun_has_no_infraction() -> None:
    env = DriveVectorEnv(1, observation="privileged", autoreset_mode=AutoresetMode.NEXT_STEP)
    env.reset(seed=0)
    astray, terminated = np.array([[1.0, 1.0]], np.float32), np.zeros(1, np.bool_)
    while not terminated[0]:
        _, _, terminated, _, info = env.step(astray)
    assert info["infractions"][0]
    *_, begun = env.step(astray)
    assert env.batch.world.state.tick[0] == 0
    assert not begun["_infractions"][0]
    assert begun["infractions"][0] is None


def test_infractions_are_told_when_they_happen_and_again_at_the_end() -> None:
    config = {"observation": "privileged", "end_on_infraction": False, "max_steps": 120}
    single, vector = DriveEnv(**config), DriveVectorEnv(2, **config)
    single.reset(seed=0)
    vector.reset(seed=0)
    action, met = np.array([1.0, 0.6], np.float32), set()
    for _ in range(120):
        _, _, terminated, truncated, info = single.step(action)
        *_, infos = vector.step(np.stack([action] * 2))
        assert (infos["infractions"][0] or {}) == info["infractions"]
        assert infos["_infractions"][0] == bool(info["infractions"])
        met |= info["infractions"].keys()
        if terminated or truncated:
            break
    assert len(met) > 1
    assert info["episode_infractions"].keys() == met
    assert infos["final_info"]["infractions"][0] == info["episode_infractions"]
    assert info["is_success"] is False


def test_success_in_a_scenario_is_that_of_its_checks() -> None:
    config = EnvConfig.of(observation="privileged", scenario="unprotected_left")

    class Heedless(RouteFollower):
        """Goes on, whoever comes."""

        def act(self, observation, situation):  # type: ignore[no-untyped-def]
            return super().act(
                observation, replace(situation, yield_distance_m=np.full(len(situation.speed_mps), np.inf))
            )

    seeds, driver = range(3), Heedless()
    results, _ = run_episodes(DriveBatch(config, 3), driver, seeds)
    env = DriveEnv(**config.model_dump())
    found = []
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        over = False
        while not over:
            action = driver.act(observation, env.batch.situation)[0]
            observation, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
        found.append((info["is_success"], info["checks"]))
    assert found == [(r.success, r.checks) for r in results]
    assert any(not checks["gave_way"] and not r.infractions for (_, checks), r in zip(found, results, strict=True))


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
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
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


def test_gnss_and_imu_of_an_episode_that_is_played_again_are_those_of_its_own_drive() -> None:
    batch = DriveBatch(EnvConfig.of(rig="smoke", world={"agents": 1}), 1)
    batch.reset(np.ones(1, np.bool_), np.array([5], np.uint64), np.zeros(1, np.int64))
    begun = batch.save(0)

    def imu_after(steer: float) -> float:
        for _ in range(30):
            batch.step(np.array([[steer, 0.6]], np.float32))
        frame = batch.frame(0)
        assert frame.imu is not None
        assert frame.ego is not None
        assert abs(frame.imu.angular_rate_radps[-1, 2] - frame.ego.yaw_rate_radps) < 0.05
        return frame.ego.yaw_rate_radps

    straight = imu_after(0.0)
    batch.go_back({0: begun})
    left = imu_after(0.3)
    batch.reset(np.ones(1, np.bool_), np.array([5], np.uint64), np.zeros(1, np.int64))
    assert left > straight + 0.1 > imu_after(-0.3) + 0.2


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
