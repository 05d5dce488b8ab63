"""Recorded traffic in closed loop: tracks are kept, the ego in the way makes actors hand over, and sensors see them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from synthetic_recordings import FOLLOWER, ONCOMING, WALKER, scene_of, waymo_scenario, write_argoverse2

from perception.sensors import SemanticClass
from planning.action import Action
from sim.drive import DriveConfig, drive, load_policy
from sim.drive_batch import DriveBatch, EnvConfig
from sim.env import ENV_ID
from sim.episode import run_episodes
from sim.playback.playback_arrays import along_path
from sim.playback.recorded_scene import RecordedScene
from sim.roads.driving_map import DrivingMap
from sim.sensors.rig import rig
from sim.sensors.suite import SensorSuite
from sim.traffic.playback import DRIVES, FOLLOWS
from sim.world import EGO, ActorKind, CollisionKind, World, WorldConfig

BRAKE, COAST = np.array([[0.0, -1.0]], np.float32), np.zeros((1, 2), np.float32)


def errors(world: World, scene: RecordedScene, tick: int, env: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Distance in m and turn in rad of every actor from its track at a tick."""
    tracks, state = scene.others, world.state
    distance = np.hypot(state.x_m[env, 1:] - tracks.x_m[:, tick], state.y_m[env, 1:] - tracks.y_m[:, tick])
    turn = np.abs(np.angle(np.exp(1j * (state.yaw_rad[env, 1:] - tracks.yaw_rad[:, tick]))))
    return distance, turn


def put_ego(world: World, x: float, y: float, yaw: float) -> None:
    state = world.state
    state.x_m[:, EGO], state.y_m[:, EGO], state.yaw_rad[:, EGO], state.speed_mps[:, EGO] = x, y, yaw, 0.0
    state.steer_rad[:, EGO] = 0.0


def check_log(driving_map: DrivingMap, actions: np.ndarray) -> None:
    scene = scene_of(driving_map)
    world = World(driving_map, WorldConfig(playback="log"), 1)
    for tick in range(scene.num_ticks):
        if tick > 0:
            world.step(actions)
        there = scene.others.present[:, tick]
        assert np.array_equal(world.state.active[0, 1:] == 1, there)
        distance, turn = errors(world, scene, tick)
        assert distance[there].max(initial=0.0) < 0.1
        assert turn[there].max(initial=0.0) < 0.01
        np.testing.assert_array_equal(world.state.kind[0, 1:][there], scene.others.kind[there])


def test_log_keeps_every_track_at_every_tick(street: DrivingMap) -> None:
    check_log(street, BRAKE)


def test_log_keeps_every_real_track_at_every_tick(real: DrivingMap) -> None:
    check_log(real, BRAKE)


def raw_waymo(path: Path) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Name, seconds, places (K, 2) and yaw (K,) of every object, as the file has them."""
    found = []
    for thing in json.loads(path.read_text())["objects"]:
        valid = np.flatnonzero(thing["valid"])
        places = np.array([[thing["position"][k]["x"], thing["position"][k]["y"]] for k in valid])
        found.append((str(thing["id"]), 0.1 * valid, places, np.array(thing["heading"])[valid]))
    return found


def raw_argoverse2(folder: Path) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """The same of every track of boxes, put into the city by the pose at the very stamp; rotations by OpenCV."""
    import cv2
    from pyarrow import feather

    def matrix(row: dict[str, float]) -> np.ndarray:
        axis = np.array([row["qx"], row["qy"], row["qz"]])
        length = float(np.linalg.norm(axis))
        angle = 2.0 * np.arctan2(length, row["qw"])
        return cv2.Rodrigues(axis / length * angle if length > 0 else np.zeros(3))[0]

    table = feather.read_table(folder / "city_SE3_egovehicle.feather").to_pylist()
    poses = {row["timestamp_ns"]: row for row in table}
    rows = feather.read_table(folder / "annotations.feather").to_pylist()
    first = min(row["timestamp_ns"] for row in rows)
    tracks: dict[str, list[tuple[float, float, float, float]]] = {}
    for row in rows:
        pose = poses[row["timestamp_ns"]]
        rotation = matrix(pose)
        place = rotation @ [row["tx_m"], row["ty_m"], row["tz_m"]] + [pose["tx_m"], pose["ty_m"], pose["tz_m"]]
        ahead = rotation @ matrix(row)[:, 0]
        entry = ((row["timestamp_ns"] - first) / 1e9, place[0], place[1], np.arctan2(ahead[1], ahead[0]))
        tracks.setdefault(row["track_uuid"], []).append(entry)
    return [(name, *(lambda v: (v[:, 0], v[:, 1:3], v[:, 3]))(np.array(sorted(t)))) for name, t in tracks.items()]


def test_what_is_played_is_what_the_files_say(real: DrivingMap) -> None:
    """Every label of every actor, read by other code, against the world's states: 0.1 m and 3 degrees."""
    scene, path = scene_of(real), Path(real.name)
    world = World(real, WorldConfig(playback="log"), 1)
    states = [(world.state.x_m[0, 1:].copy(), world.state.y_m[0, 1:].copy(), world.state.yaw_rad[0, 1:].copy())]
    for _ in range(scene.num_ticks - 1):
        world.step(BRAKE)
        states.append((world.state.x_m[0, 1:].copy(), world.state.y_m[0, 1:].copy(), world.state.yaw_rad[0, 1:].copy()))
    x, y, yaw = (np.array([s[k] for s in states]) for k in range(3))
    raw = {name: rest for name, *rest in (raw_argoverse2(path) if path.is_dir() else raw_waymo(path))}
    checked = 0
    for n, name in enumerate(scene.others.name):
        seconds, places, heading = raw[name]
        present = np.flatnonzero(scene.others.present[n])
        inside = (seconds >= 0.1 * present[0] - 1e-9) & (seconds <= 0.1 * present[-1] + 1e-9)
        at = 0.1 * present
        played = np.stack([np.interp(seconds, at, x[present, n]), np.interp(seconds, at, y[present, n])], axis=1)
        error = np.hypot(*(played + scene.origin_m - places)[inside].T)
        assert error.max(initial=0.0) < 0.1, name
        turned = np.interp(seconds, at, np.unwrap(yaw[present, n])) - heading
        assert np.abs(np.angle(np.exp(1j * turned[inside]))).max(initial=0.0) < np.deg2rad(3.0), name
        checked += int(inside.sum())
    assert checked > 500


def test_the_ego_begins_as_recorded(street: DrivingMap) -> None:
    scene = scene_of(street)
    world = World(street, WorldConfig(), 2)
    state = world.state
    assert np.hypot(state.x_m[:, EGO] - scene.ego.x_m[0, 0], state.y_m[:, EGO] - scene.ego.y_m[0, 0]).max() < 1e-9
    np.testing.assert_allclose(state.yaw_rad[:, EGO], scene.ego.yaw_rad[0, 0], atol=1e-9)
    np.testing.assert_allclose(state.speed_mps[:, EGO], 8.0, atol=0.05)
    assert state.x_m.shape[1] == 1 + scene.others.num_actors


def test_a_car_behind_a_stopped_ego_hands_over_and_stops(street: DrivingMap) -> None:
    scene = scene_of(street)
    collided = {}
    for mode in ("log", "reactive"):
        world = World(street, WorldConfig(playback=mode), 1)
        hit = False
        for tick in range(1, scene.num_ticks):
            world.step(BRAKE)
            hit = hit or world.events.collision[0] != CollisionKind.NONE
            distance, _ = errors(world, scene, tick)
            undisturbed = [n for n in range(scene.others.num_actors) if n != FOLLOWER and scene.others.present[n, tick]]
            assert distance[undisturbed].max() < 0.1
        collided[mode] = hit
        modes = world._hidden.followers[0]["mode"]
        assert (modes[FOLLOWER] == DRIVES) == (mode == "reactive")
    assert collided == {"log": True, "reactive": False}
    state = world.state
    assert state.speed_mps[0, 1 + FOLLOWER] < 0.3
    behind = np.hypot(state.x_m[0, 1] - state.x_m[0, EGO], state.y_m[0, 1] - state.y_m[0, EGO])
    assert 4.6 < behind < 12.0


def test_nobody_hands_over_while_the_ego_drives_as_recorded(real: DrivingMap) -> None:
    check_recorded_ego(real)


def test_nobody_hands_over_on_the_street_while_the_ego_drives_as_recorded(street: DrivingMap) -> None:
    check_recorded_ego(street)


def check_recorded_ego(driving_map: DrivingMap) -> None:
    scene = scene_of(driving_map)
    world = World(driving_map, WorldConfig(), 1)
    for tick in range(1, scene.num_ticks):
        world.step(COAST)
        put_ego(world, scene.ego.x_m[0, tick], scene.ego.y_m[0, tick], scene.ego.yaw_rad[0, tick])
        world.state.speed_mps[0, EGO] = scene.ego.speed_mps[0, tick]
        record = world._hidden.cars[0, EGO]
        record["x"], record["y"] = scene.ego.x_m[0, tick], scene.ego.y_m[0, tick]
        record["yaw"], record["speed"] = scene.ego.yaw_rad[0, tick], scene.ego.speed_mps[0, tick]
        distance, _ = errors(world, scene, tick)
        assert distance[scene.others.present[:, tick]].max(initial=0.0) < 0.1
    assert not (world._hidden.followers[0]["mode"] == DRIVES).any()


def in_somebodys_way(scene: RecordedScene) -> list[tuple[int, float, float, float]]:
    """Actor and place: where a car that drives far will be, with nobody else on that place before."""
    tracks, found = scene.others, []
    for n in range(tracks.num_actors):
        at = np.flatnonzero(tracks.present[n])
        along = along_path(tracks.x_m[n, at], tracks.y_m[n, at])
        enough = 12.0 + tracks.speed_mps[n, at[0]] ** 2 / 6.0
        if tracks.kind[n] > ActorKind.BUS or along[-1] < enough + 8.0:
            continue
        k = int(np.searchsorted(along, max(enough, 0.7 * along[-1])))
        x, y, yaw = (float(v[n, at[k]]) for v in (tracks.x_m, tracks.y_m, tracks.yaw_rad))
        away = np.hypot(tracks.x_m - x, tracks.y_m - y)[:, : at[k]]
        away[~tracks.present[:, : at[k]]] = np.inf
        away[n] = np.inf
        if away.min(initial=np.inf) > 6.0:
            found.append((n, x, y, yaw))
    return found


def test_whoever_comes_upon_a_standing_ego_hands_over(real: DrivingMap) -> None:
    """The ego stands in the way of one car after another: as a log they drive through it, reactive they do not."""
    scene = scene_of(real)
    places = in_somebodys_way(scene)
    assert places
    for n, x, y, yaw in places:
        outcome = {}
        for mode in ("log", "reactive"):
            world = World(real, WorldConfig(playback=mode), 1)
            put_ego(world, x, y, yaw)
            record = world._hidden.cars[0, EGO]
            record["x"], record["y"], record["yaw"], record["speed"] = x, y, yaw, 0.0
            hits = []
            for tick in range(1, scene.num_ticks):
                world.step(BRAKE)
                hits.append(world.events.collision[0] != CollisionKind.NONE)
                if mode == "reactive":
                    following = world._hidden.followers[0]["mode"] == FOLLOWS
                    distance, _ = errors(world, scene, tick)
                    assert distance[following].max(initial=0.0) < 0.1
            outcome[mode] = any(hits)
        assert outcome == {"log": True, "reactive": False}, (n, x, y)


def test_an_actor_that_handed_over_never_gets_ahead_of_its_record(street: DrivingMap) -> None:
    scene = scene_of(street)
    world = World(street, WorldConfig(), 1)
    heading = np.array([np.cos(scene.ego.yaw_rad[0, 0]), np.sin(scene.ego.yaw_rad[0, 0])])
    for tick in range(1, scene.num_ticks):
        # Brakes for two seconds, then drives on, so that the follower has something to catch up with.
        world.step(BRAKE if tick < 20 else np.array([[0.0, 0.8]], np.float32))
        tracks = scene.others
        lag = np.array([tracks.x_m[0, tick] - world.state.x_m[0, 1], tracks.y_m[0, tick] - world.state.y_m[0, 1]])
        assert lag @ heading > -0.05
    assert world._hidden.followers[0]["mode"][FOLLOWER] == DRIVES
    assert world.state.speed_mps[0, 1 + FOLLOWER] > 3.0


def test_an_episode_is_the_same_in_any_slot(street: DrivingMap) -> None:
    alone, many = World(street, WorldConfig(), 1), World(street, WorldConfig(), 3)
    seeds = np.array([5, 6, 7], np.uint64)
    many.reset(np.ones(3, np.bool_), seeds, np.zeros(3, np.int64))
    alone.reset(np.ones(1, np.bool_), seeds[2:], np.zeros(1, np.int64))
    for _ in range(60):
        many.step(np.array([[0.0, 0.5], [0.1, 0.0], [0.0, -1.0]], np.float32))
        alone.step(BRAKE)
        for name in ("x_m", "y_m", "yaw_rad", "speed_mps", "active", "paint", "brake_light"):
            assert getattr(many.state, name)[2].tobytes() == getattr(alone.state, name)[0].tobytes(), name


def test_snapshots_hold_who_has_handed_over(street: DrivingMap) -> None:
    world = World(street, WorldConfig(), 1)
    for _ in range(30):
        world.step(BRAKE)
    kept = world.snapshot()
    first = []
    for _ in range(20):
        world.step(BRAKE)
        first.append(world.state.x_m.copy())
    world.restore(kept)
    for before in first:
        world.step(BRAKE)
        assert before.tobytes() == world.state.x_m.tobytes()


def test_the_expert_keeps_up_with_the_recorded_driver(real: DrivingMap) -> None:
    config = EnvConfig.of(map=real.name, observation="privileged")
    batch = DriveBatch(config, 1, real)
    results, _ = run_episodes(batch, load_policy("expert"), [3])
    assert results[0].success, results[0].details
    assert results[0].steps == scene_of(real).num_ticks - 1


def test_an_idle_ego_does_not_keep_up(street: DrivingMap) -> None:
    batch = DriveBatch(EnvConfig.of(map=street.name, observation="privileged"), 1, street)
    results, _ = run_episodes(batch, load_policy("idle"), [3])
    assert not results[0].success
    assert results[0].infractions == {"timeout": 1}


def seen_by_sensors(driving_map: DrivingMap, ticks: int) -> tuple[World, SensorSuite]:
    """A world some ticks into its recording, and what a labelled rig has seen of its last tick."""
    world = World(driving_map, WorldConfig(playback="log"), 1)
    suite = SensorSuite(rig("small"), driving_map, 1, world.state.x_m.shape[1], labels=True)
    for _ in range(ticks):
        world.step(COAST)
    suite.observe(world.state, None)
    return world, suite


def test_camera_and_lidar_show_the_actors(street: DrivingMap) -> None:
    world, suite = seen_by_sensors(street, 20)
    camera = suite.instance["camera_wide"][0]
    assert {1 + ONCOMING, 1 + WALKER} <= set(np.unique(camera).tolist())
    labels = suite.point_labels[0, : suite.point_count[0]]
    assert (labels[:, 2] == 1 + FOLLOWER).sum() > 20
    share = np.bincount(suite.semantic["camera_wide"].ravel(), minlength=len(SemanticClass)) / camera.size
    assert share[SemanticClass.ROAD] > 0.15
    assert share[SemanticClass.LANE_MARKING] > 0.005
    assert_points_on_actor(world, suite, 1 + FOLLOWER)


def test_camera_and_lidar_show_real_actors(real: DrivingMap) -> None:
    world, suite = seen_by_sensors(real, 10)
    state = world.state
    near = np.hypot(state.x_m[0] - state.x_m[0, EGO], state.y_m[0] - state.y_m[0, EGO]) < 60.0
    actors = set(np.flatnonzero(near & (state.active[0] == 1))[1:].tolist())
    in_camera = actors & set(np.unique(suite.instance["camera_wide"]).tolist())
    in_sweep = actors & set(np.unique(suite.point_labels[0, : suite.point_count[0], 2]).tolist())
    assert len(in_camera) >= 2
    assert len(in_sweep) >= 3
    for agent in in_sweep:
        assert_points_on_actor(world, suite, agent)


def assert_points_on_actor(world: World, suite: SensorSuite, agent: int) -> None:
    """The points with an agent's label lie in its box, a quarter of a metre added (mirrors, people's arms)."""
    state = world.state
    mine = suite.point_labels[0, : suite.point_count[0], 2] == agent
    pose = world.world_from_ego(0)
    points = suite.points[0, : suite.point_count[0]][mine, :3] @ pose[:3, :3].T + pose[:3, 3]
    dx, dy = points[:, 0] - state.x_m[0, agent], points[:, 1] - state.y_m[0, agent]
    cos, sin = np.cos(state.yaw_rad[0, agent]), np.sin(state.yaw_rad[0, agent])
    assert np.abs(cos * dx + sin * dy).max() < 0.5 * state.length_m[0, agent] + 0.25
    assert np.abs(cos * dy - sin * dx).max() < 0.5 * state.width_m[0, agent] + 0.25


def test_a_recorded_log_of_playback_simulates_again_without_the_recording(tmp_path: Path) -> None:
    from rich.console import Console

    from sim.replay_command import replay_logs

    recording = write_argoverse2(tmp_path / "log")
    config = DriveConfig(policy="idle", env=EnvConfig.of(map=str(recording), max_steps=25))
    report = drive(config, record=tmp_path / "runs")
    recording.rename(tmp_path / "elsewhere")
    (log,) = report.logs
    assert log is not None
    (replayed,) = replay_logs([log], None, True, None, Console(quiet=True))
    assert replayed["resimulation"]["equal"]
    assert replayed["resimulation"]["steps"] == 26


def test_recordings_play_over_the_gymnasium_interface(tmp_path: Path) -> None:
    import gymnasium

    scenario = waymo_scenario()
    for thing in scenario["objects"]:
        for key in ("position", "heading", "valid"):
            thing[key] = thing[key][:21]
    path = tmp_path / "short.json"
    path.write_text(json.dumps(scenario))
    env = gymnasium.make(ENV_ID, map=str(path), observation="privileged")
    env.reset(seed=0)
    steps, done = 0, False
    while not done:
        _, _, terminated, truncated, _ = env.step(Action(0.0, 0.1).as_vector())
        steps, done = steps + 1, terminated or truncated
    assert steps == 20
    env.close()
