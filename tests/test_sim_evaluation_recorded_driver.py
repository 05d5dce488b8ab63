"""On a recording, scores compare with the recorded driver: tracks and scores by hand on an invented street, and on real ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_recordings import SPEED_MPS, TICKS, YAW_RAD, placed, scene_of, waymo_scenario

from sim.drive import load_policy
from sim.drive_batch import DriveBatch, EnvConfig
from sim.evaluate import evaluate
from sim.evaluation.episode_run import drive_episode
from sim.evaluation.episode_scores import score_episode
from sim.evaluation.recorded_driver import actors_at, beyond_the_goal, furthest_along, recorded_track
from sim.evaluation.track import Track
from sim.roads.driving_map import DrivingMap, load_map
from sim.step import Actors

DRIVEN_M = 0.1 * (TICKS - 1) * SPEED_MPS  # 72 m


def street_driven(folder: Path, along: np.ndarray, left: float) -> DrivingMap:
    """The street with another recorded drive: places along it and left of the lane's middle, m."""
    scenario = waymo_scenario()
    for position, (x, y) in zip(scenario["objects"][-1]["position"], placed(along, left), strict=True):
        position |= {"x": float(x), "y": float(y)}
    path = folder / f"driven-{left}.json"
    path.write_text(json.dumps(scenario))
    return load_map(str(path))


def at_speed(track: Track, share: float) -> Track:
    """The same straight way at a share of the speed."""
    return replace(
        track,
        x_m=track.x_m[0] + share * (track.x_m - track.x_m[0]),
        y_m=track.y_m[0] + share * (track.y_m - track.y_m[0]),
        speed_mps=share * track.speed_mps,
        arrived=False,
    )


def test_the_track_of_steady_driving_by_hand(street: DrivingMap) -> None:
    track = recorded_track(street)
    assert track.ticks == TICKS
    assert track.progress_m == pytest.approx(0.1 * SPEED_MPS * np.arange(TICKS), abs=2e-3)
    assert track.route_length_m == pytest.approx(0.8 * DRIVEN_M, abs=1e-2)
    assert track.speed_mps == pytest.approx(np.full(TICKS, SPEED_MPS), abs=1e-3)
    assert track.yaw_rad == pytest.approx(np.full(TICKS, YAW_RAD), abs=1e-3)
    for nothing in (track.acceleration_mps2, track.yaw_rate_radps, track.lane_offset_m, track.off_drivable_m):
        assert nothing == pytest.approx(np.zeros(TICKS), abs=0.01)
    assert not track.touching.any()
    assert track.contacts == track.infractions == ()
    assert track.arrived
    # Within 50 m are, at the end, the follower at 8 m/s and the parked car; the other came the other way at 9 m/s.
    assert track.traffic_mps[-1] == pytest.approx((SPEED_MPS + 0.0) / 2, abs=0.01)
    assert np.isinf(track.ttc_s).all()  # who follows does not count


def test_acceleration_is_that_of_the_speeds(tmp_path: Path) -> None:
    t = 0.1 * np.arange(TICKS)
    track = recorded_track(street_driven(tmp_path, 3.0 * t + 0.5 * 1.2 * t**2, 0.0))
    inner = slice(10, -10)  # speeds at the ends are one-sided differences
    assert track.acceleration_mps2[inner] == pytest.approx(np.full(TICKS - 20, 1.2), abs=0.02)
    assert track.speed_mps[inner] == pytest.approx(3.0 + 1.2 * t[inner], abs=0.01)


@pytest.mark.parametrize(("share", "ep"), [(0.1, 0.1), (0.5, 0.5), (0.9, 0.9), (1.0, 1.0), (1.2, 1.0)])
def test_progress_is_compared_with_the_recorded_drivers(street: DrivingMap, share: float, ep: float) -> None:
    recorded = recorded_track(street)
    ego = beyond_the_goal(at_speed(recorded, share), street)
    assert ego.progress_m[-1] == pytest.approx(share * DRIVEN_M, abs=0.01)
    scores = score_episode(ego, recorded)
    assert scores.nuplan.ep == pytest.approx(ep, abs=1e-3)
    assert scores.nuplan.mp == (1.0 if ep >= 0.2 else 0.0)
    assert scores.completion == pytest.approx(min(share / 0.8, 1.0), abs=1e-3)  # the goal is at 80 %
    # Each window of 4 s begins where the ego is; 8 m/s are 32 m there, unless the recording ends before (the third is of 1 s).
    windows = [parts.ep for _, _, parts in scores.windows]
    assert windows[0] == pytest.approx(min(share, 1.0), abs=0.03)
    pdms = scores.pdms_driven_4s
    weights = np.array([40, 40, 10]) / 90
    assert pdms == pytest.approx(float(weights @ [(5 * e + 5 + 2) / 12 for e in windows]), abs=1e-6)


def test_what_the_recorded_driver_failed_too_is_waived(tmp_path: Path) -> None:
    """A recorded car whose box touches a parked one: an ego that does the same loses PDMS there, and no EPDMS.

    At 8 m/s its front, 2.3 m before its middle, comes to the parked car's rear at 30 - 2.3 m after 3.2 s: in the first window.
    """
    recorded = recorded_track(street_driven(tmp_path, 0.1 * SPEED_MPS * np.arange(TICKS), -2.0))
    (contact,) = recorded.contacts
    assert (contact.tick, contact.kind, contact.at_fault) == (32, "vehicle", True)
    scores = score_episode(recorded, recorded)
    assert [(parts.nc, parts.ttc) for _, _, parts in scores.windows] == [(0.0, 0.0), (1.0, 1.0), (1.0, 1.0)]
    assert scores.pdms_driven_4s == pytest.approx(50 / 90)  # the second window has 40 ticks and the third 10
    assert scores.epdms_driven_4s == 1.0
    careful = replace(recorded, contacts=(), pdm_ttc_s=np.full(TICKS, np.inf))
    assert score_episode(recorded, careful).epdms_driven_4s == pytest.approx(50 / 90)


@given(st.lists(st.floats(0.0, 30.0), min_size=1, max_size=40), st.floats(-2.0, 2.0))
def test_places_beside_a_straight_line_are_as_far_as_the_furthest(along: list[float], aside: float) -> None:
    line = np.column_stack([np.arange(31.0), np.zeros(31)])
    steps = np.clip(np.diff([0.0, *along]), -5.0, 5.0)  # no jumps: a place is looked for near the last one
    x = np.clip(np.cumsum(steps), 0.0, 30.0)
    assert furthest_along(line, x, np.full(len(x), aside)) == pytest.approx(np.maximum.accumulate(x), abs=1e-9)


def test_a_way_that_crosses_itself_is_no_short_cut() -> None:
    """A square of 20 m that comes back to its beginning."""
    side = np.arange(20.0)
    zero, whole = np.zeros(20), np.full(20, 20.0)
    corners = [(side, zero), (whole, side), (20.0 - side, whole), (zero, 20.0 - side)]
    line = np.concatenate([np.column_stack(part) for part in corners])
    assert furthest_along(line, line[:, 0], line[:, 1]) == pytest.approx(np.arange(80.0), abs=1e-9)
    assert furthest_along(line, np.zeros(5), np.full(5, 1.0)) == pytest.approx(np.zeros(5))  # 79 m are not near


def same(one: Actors, other: Actors) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__)


def test_others_and_the_egos_place_are_those_of_the_world(street: DrivingMap) -> None:
    """The world plays the same recording; at the first tick its ego is where the recorded car was."""
    config = EnvConfig.of(map=street.name, observation="privileged", world={"playback": "log"})
    batch, scene, recorded = DriveBatch(config, 1, street), scene_of(street), recorded_track(street)
    batch.reset(np.ones(1, np.bool_), np.zeros(1, np.uint64), np.zeros(1, np.int64))
    first = batch.snapshot(0, None)
    assert first.standing is not None
    assert first.standing.lane_offset_m == pytest.approx(recorded.lane_offset_m[0], abs=1e-9)
    assert first.standing.speed_limit_mps == recorded.speed_limit_mps[0]
    for tick in range(scene.num_ticks):
        actors = batch.snapshot(0, None).actors
        assert actors is not None
        assert same(actors, actors_at(scene, tick)), tick
        batch.step(np.zeros((1, 2), np.float32))


@pytest.mark.parametrize("policy", ["expert", "idle"])
def test_progress_is_the_worlds_as_far_as_the_goal(street: DrivingMap, policy: str) -> None:
    batch = DriveBatch(EnvConfig.of(map=street.name, observation="privileged", end_on_infraction=False), 1, street)
    track, _ = drive_episode(batch, load_policy(policy), 3)
    further = beyond_the_goal(track, street)
    assert np.minimum(further.progress_m, track.route_length_m) == pytest.approx(track.progress_m, abs=1e-4)
    if policy == "expert":
        assert further.progress_m[-1] > track.route_length_m + 10.0


def test_real_drivers_keep_the_rules_and_full_marks(real: DrivingMap) -> None:
    recorded, scene = recorded_track(real), scene_of(real)
    assert np.array_equal(recorded.x_m.round(6), scene.ego.x_m[0].round(6))
    assert recorded.progress_m[-1] == pytest.approx(recorded.route_length_m / 0.8, rel=0.01)
    assert recorded.contacts == recorded.infractions == ()
    scores = score_episode(recorded, recorded)
    assert (scores.cls_nr, scores.pdms_driven_4s, scores.epdms_driven_4s) == (1.0, 1.0, 1.0)


def test_a_suite_of_recordings_is_scored_against_the_recorded_drivers(street: DrivingMap, tmp_path: Path) -> None:
    """The route follower too, which is its own reference elsewhere."""
    suite = tmp_path / "recorded.toml"
    name = Path(street.name).name
    suite.write_text(
        f'name = "recorded"\ndescription = "One."\nsplit = "any"\nepisodes = [{{ map = "{name}", seed = 3 }}]\n'
    )
    found = {}
    for policy in ("expert", "idle"):
        out = tmp_path / policy
        run = evaluate(str(suite), policy, out=out, maps_dir=Path(street.name).parent)
        (report,) = run.reports
        assert (report["reference"], report["family"]) == ("recorded driver", "playback")
        assert not (out / "references").exists()
        found[policy] = report["scores"]
    batch = DriveBatch(EnvConfig.of(map=street.name, observation="privileged", end_on_infraction=False), 1, street)
    for policy, scores in found.items():
        track, _ = drive_episode(batch, load_policy(policy), 3)
        progress = float(beyond_the_goal(track, street).progress_m[-1])
        assert scores["nuplan"]["ep"] == pytest.approx(min(progress / DRIVEN_M, 1.0), abs=1e-4)
    assert found["expert"]["success"]
    assert found["idle"]["nuplan"]["ep"] < 0.2
