"""Tracks: the same live and from a log; collisions, stop signs and times to collision by hand; laws of whole scores."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.geometry import se2_as_se3
from perception.sensors import EgoState, SensorFrame
from planning.route_follower import RouteFollower
from sim.drive_batch import DriveBatch, EnvConfig
from sim.episode import run_episodes
from sim.evaluation.episode_scores import FAILURES, as_plain, min_speed_shares, route_record, score_episode
from sim.evaluation.rates import episode_rates, latency_of, mean_time_between, per_100_km
from sim.evaluation.time_to_collision import is_at_fault, least_meeting_time
from sim.evaluation.track import Infraction, Track
from sim.evaluation.track_observer import NotScorable, TrackObserver, track_of
from sim.logs.log import LogHeader
from sim.logs.reader import open_log
from sim.logs.writer import LogWriter
from sim.roads.driving_map import DrivingMap
from sim.step import Actors, ParkedVehicle, Standing, Step

ROOMY = Standing(4.6, 1.86, 1.35, 0.0, 13.9, 0.0, False, False, False, False, -1, None, -1, None, (), ())
NOBODY = Actors(
    np.zeros(0, np.int32), np.zeros(0, np.int8), np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros(0)
)


def step_at(
    tick: int, x: float, speed: float, standing: Standing = ROOMY, actors: Actors = NOBODY, **events: str
) -> Step:
    """An ego that drives east along y = 0, its box's centre at x."""
    ego = EgoState(tick * 100_000, speed, 0.0, 0.0, 0.0, 0.0, se2_as_se3(x - 1.35, 0.0, 0.0))
    frame = SensorFrame(tick * 100_000, {}, {}, ego, None)
    return Step(
        tick,
        tick * 100_000,
        frame,
        None,
        events=events,
        actors=actors,
        progress_m=x,
        route_length_m=100.0,
        standing=standing,
    )


def cruise(ticks: int = 101, speed: float = 10.0, **changes: object) -> Track:
    steps = [step_at(k, speed * 0.1 * k, speed) for k in range(ticks)]
    return replace(track_of(steps), **changes)


def one_actor(x: float, y: float, speed: float = 0.0, yaw: float = 0.0, kind: int = 0) -> Actors:
    return Actors(
        np.array([3], np.int32), np.array([kind], np.int8), np.array([[x, y, 0.7]]), np.array([[4.0, 2.0, 1.5]]),
        np.array([yaw]), np.array([speed]),
    )  # fmt: skip


def test_a_log_scores_as_the_live_episode_did(town: DrivingMap, tmp_path: Path) -> None:
    """A short drive with traffic that hits something, watched live and read back."""

    class Swerving(RouteFollower):
        def act(self, observation, situation):
            actions = super().act(observation, situation)
            actions[:, 0] += 0.12
            return np.clip(actions, -1, 1)

    config = EnvConfig.of(
        observation="privileged",
        end_on_infraction=False,
        max_steps=160,
        world={"route_min_m": 80.0, "route_max_m": 120.0},
    )
    batch, live = DriveBatch(config, 1, town), TrackObserver()
    header = LogHeader.of_this_machine(config.model_dump_json(), 20_003, 0, "swerving", "grid-small")
    writer = LogWriter(tmp_path / "a.mcap", header, net_xml=town.net_xml)
    run_episodes(batch, Swerving(), [20_003], lambda seed: [writer, live])
    with open_log(tmp_path / "a.mcap") as log:
        recorded = track_of(log.steps())
    driven, expert = live.track(), cruise()
    assert driven.ticks > 60
    assert len(driven.infractions) > 0
    assert recorded.as_json() == driven.as_json()
    assert as_plain(score_episode(recorded, expert)) == as_plain(score_episode(driven, expert))
    assert episode_rates(recorded) == episode_rates(driven)


def test_a_track_survives_json_to_the_bit() -> None:
    track = cruise(traffic_mps=np.full(101, np.nan), ttc_s=np.full(101, np.inf))
    again = Track.from_json(json.loads(json.dumps(track.as_json(), allow_nan=False)))
    for name, value in track.__dict__.items():
        np.testing.assert_array_equal(getattr(again, name), value, strict=isinstance(value, np.ndarray))


def test_steps_that_say_too_little_are_refused() -> None:
    with pytest.raises(NotScorable, match="version 1"):
        track_of([replace(step_at(0, 0.0, 0.0), standing=None)])
    with pytest.raises(NotScorable, match="no step"):
        track_of([])


def test_a_clean_drive_scores_full_marks_against_itself() -> None:
    track = cruise(102)  # to 101 m of 100
    scores = score_episode(track, track)
    assert scores.success
    assert scores.driving_score_1_0 == scores.driving_score_2_0 == scores.driving_score_2_1 == 100.0
    assert scores.cls_nr == scores.pdms_driven_4s == scores.epdms_driven_4s == 1.0
    rates = episode_rates(track)
    assert rates.metadrive_success
    assert (rates.driven_m, rates.mean_speed_mps) == pytest.approx((101.0, 10.0))
    assert rates.waymo_overlap == rates.waymo_off_road == rates.waymo_wrong_way == 0.0


def test_who_stands_still_gets_nothing_but_what_is_left_by_definition() -> None:
    idle, expert = cruise(speed=0.0), cruise()
    scores = score_episode(idle, expert)
    assert not scores.success
    assert scores.driving_score_1_0 == scores.driving_score_2_1 == 0.0
    assert scores.nuplan.mp == scores.cls_nr == 0.0
    assert scores.pdms_driven_4s == pytest.approx(7 / 12)  # safe and comfortable, without progress


infractions = st.lists(st.tuples(st.sampled_from([*FAILURES, "wrong_way"]), st.integers(1, 100)), max_size=5).map(
    lambda found: tuple(Infraction(kind, tick, 0.0, 0.0, "") for kind, tick in found)
)


@given(infractions, infractions)
def test_more_infractions_never_raise_a_score(some: tuple[Infraction, ...], more: tuple[Infraction, ...]) -> None:
    expert = cruise()
    before, after = (score_episode(replace(expert, infractions=found), expert) for found in (some, some + more))
    names = (
        "success",
        "driving_score_1_0",
        "driving_score_2_0",
        "driving_score_2_1",
        "cls_nr",
        "pdms_driven_4s",
        "epdms_driven_4s",
    )
    for name in names:
        assert getattr(after, name) <= getattr(before, name)
        assert 0.0 <= getattr(after, name) <= (100.0 if "driving" in name else 1.0)


def touching(*others: int) -> Standing:
    return replace(ROOMY, touched=others)


def test_the_same_other_is_hit_again_only_after_5_s_and_5_m() -> None:
    def count(ticks: int, speed: float) -> int:
        steps = [step_at(k, 0.1 * speed * k, speed, touching(3), one_actor(0.1 * speed * k, 0.0)) for k in range(ticks)]
        return sum(i.kind == "collision_vehicle" for i in track_of(steps).infractions)

    assert count(51, 10.0) == 1
    assert count(52, 10.0) == 2  # 5.1 s and 51 m
    assert count(200, 0.2) == 1  # 4 m
    assert count(200, 0.05) == 0  # standing


def test_within_5_m_of_a_collision_no_other_is_counted() -> None:
    def hits(second: int) -> list[str]:
        """Somebody on foot at tick 1, and a post at another tick, half a metre a tick."""
        touched = {
            1: touching(3, -7) if second == 1 else touching(3),
            second: touching(3, -7) if second == 1 else touching(-7),
        }
        steps = [step_at(k, 0.5 * k, 5.0, touched.get(k, ROOMY), one_actor(2.0, 0.0, kind=6)) for k in range(30)]
        track = track_of(steps)
        assert [c.other for c in track.contacts] == [3, -7]
        return [i.kind for i in track.infractions]

    assert [hits(second) for second in (1, 11)] == [["collision_pedestrian"]] * 2
    assert hits(12) == ["collision_pedestrian", "collision_static"]  # 5.5 m further


def test_nuplan_counts_an_other_once_and_only_through_the_egos_fault() -> None:
    ahead, behind = one_actor(4.0, 0.0, 2.0), one_actor(-4.0, 0.0, 9.0)
    on, off = touching(3), ROOMY
    fault = track_of([step_at(0, 0.0, 5.0), step_at(1, 0.5, 5.0, on, ahead), step_at(2, 1.0, 5.0, off, ahead),
                      step_at(3, 1.5, 5.0, on, ahead)])  # fmt: skip
    assert [contact.at_fault for contact in fault.contacts] == [True, True]
    assert score_episode(fault, fault).nuplan.nc == 0.0
    innocent = track_of([step_at(0, 0.0, 5.0), step_at(1, 0.5, 5.0, on, behind)])
    assert [contact.at_fault for contact in innocent.contacts] == [False]
    assert score_episode(innocent, innocent).nuplan.nc == 1.0
    post = track_of([step_at(0, 0.0, 5.0), step_at(1, 0.5, 5.0, touching(-4))])
    assert score_episode(post, post).nuplan.nc == 0.5


def test_a_parked_car_is_a_vehicle_to_nuplan_and_navsim_and_a_thing_to_carla() -> None:
    """It stands 20 m ahead and is hit after 1.6 s; until then it is what the ego would meet, and afterwards nobody is."""
    parked = ParkedVehicle(-4, 20.0, 0.5, 0.1, 4.2, 1.8)
    seen, hit = replace(ROOMY, parked=(parked,)), replace(ROOMY, parked=(parked,), touched=(-4,))
    steps = [step_at(k, 1.0 * k, 10.0, hit if 16 <= k < 24 else seen) for k in range(60)]
    track = track_of(steps)
    assert track.ttc_s[:16] == pytest.approx(1.6 - 0.1 * np.arange(16), abs=0.11)
    assert not np.isfinite(track.ttc_s[16:]).any()
    assert track.pdm_ttc_s[15:17].tolist() == [pytest.approx(0.3), 0.0]
    assert [(c.tick, c.other, c.kind, c.at_fault) for c in track.contacts] == [(16, -4, "vehicle", True)]
    assert [i.kind for i in track.infractions] == ["collision_static"]
    assert score_episode(track, cruise(60)).nuplan.nc == 0.0
    beside = replace(seen, parked=(parked._replace(y_m=3.0),))
    assert not np.isfinite(track_of([step_at(k, 1.0 * k, 10.0, beside) for k in range(15)]).ttc_s).any()
    unknown = track_of([step_at(k, 1.0 * k, 10.0, replace(hit, parked=None)) for k in range(15)])
    assert [c.kind for c in unknown.contacts] == ["static"]  # logs of version 3 do not say


def test_a_collision_at_fault_is_a_time_to_collision_of_0() -> None:
    """nuPlan's rule; in the window in which it happens, and in no other."""
    post = [step_at(k, 0.5 * k, 5.0, touching(-4) if 38 <= k < 43 else ROOMY) for k in range(121)]
    track = track_of(post)
    assert not np.isfinite(track.ttc_s).any()
    scores = score_episode(track, cruise(121))
    assert (scores.nuplan.nc, scores.nuplan.ttc) == (0.5, 0.0)
    assert [window.ttc for _, _, window in scores.windows] == [0.0, 1.0, 1.0]
    scraped = replace(track, contacts=tuple(replace(contact, at_fault=False) for contact in track.contacts))
    scores = score_episode(scraped, cruise(121))
    assert scores.nuplan.ttc == 1.0
    assert [window.ttc for _, _, window in scores.windows] == [1.0, 1.0, 1.0]


def test_navsim_looks_at_who_is_hit_at_that_tick_and_no_longer_after() -> None:
    """Somebody who is suddenly ahead within the ego's box, hit between two windows, through nobody's fault."""
    ahead = [one_actor(0.5 * k + 1.0, 0.0, 5.0, math.pi) for k in range(121)]
    steps = [step_at(k, 0.5 * k, 5.0, touching(3) if k == 40 else ROOMY, ahead[k] if k >= 40 else NOBODY)
             for k in range(121)]  # fmt: skip
    track = track_of(steps)
    assert track.pdm_ttc_s[40] == 0.0
    assert np.isinf(np.delete(track.pdm_ttc_s, 40)).all()
    assert np.isinf(track.ttc_s).all()
    innocent = replace(track, contacts=tuple(replace(contact, at_fault=False) for contact in track.contacts))
    for driven in (track, innocent):
        windows = score_episode(driven, cruise(121)).windows
        assert [window.ttc for _, _, window in windows] == [0.0, 1.0, 1.0]


EGO_BOX, AXLE = np.array([0.0, 0.0, 0.0, 2.3, 0.93]), np.array([-1.35, 0.0])


def other_box(x: float, y: float, yaw: float = 0.0, speed: float = 0.0) -> np.ndarray:
    return np.array([x, y, yaw, 2.0, 1.0, speed])


@pytest.mark.parametrize(
    ("other", "speed", "strayed", "fault"),
    [
        (other_box(4.2, 0.0, speed=3.0), 5.0, False, True),  # in front
        (other_box(4.2, 0.0, speed=3.0), 0.0, True, False),  # the ego stands
        (other_box(-4.2, 0.0, speed=8.0), 5.0, True, False),  # from behind
        (other_box(-1.0, 1.9, speed=0.0), 5.0, False, True),  # it stands
        (other_box(0.0, 1.9, speed=5.0), 5.0, False, False),  # side by side, each in its lane
        (other_box(0.0, 1.9, speed=5.0), 5.0, True, True),  # side by side, astray
    ],
)
def test_fault(other: np.ndarray, speed: float, strayed: bool, fault: bool) -> None:
    assert is_at_fault(EGO_BOX, speed, AXLE, other, strayed) is fault


def meeting(other: np.ndarray, speed: float, sides: bool = False) -> float:
    times = np.arange(1, 31) * 0.1
    return least_meeting_time(EGO_BOX, speed, AXLE, other[None], np.ones(1, np.bool_), sides, times)


@given(st.floats(1, 15), st.floats(5, 60), st.floats(0, 15))
def test_time_to_a_leader_is_gap_over_closing_speed(speed: float, distance: float, leader: float) -> None:
    found, gap, closing = meeting(other_box(distance, 0.0, speed=leader), speed), distance - 4.3, speed - leader
    exact = gap / closing if closing > 1e-9 else math.inf
    if exact > 3.0 + 1e-6:
        assert found == math.inf
    elif exact < 2.9:
        assert exact - 1e-6 <= found <= exact + 0.1 + 1e-6


def test_who_counts_for_time_to_collision() -> None:
    crossing = other_box(6.0, -12.0, math.pi / 2, 8.0)
    assert meeting(crossing, 5.0) == math.inf  # to the side, and the ego is on its own lane
    assert 0.5 < meeting(crossing, 5.0, sides=True) < 2.0
    assert meeting(other_box(-8.0, 0.0, speed=15.0), 5.0, sides=True) == math.inf
    assert meeting(other_box(6.0, 0.0), 0.0, sides=True) == math.inf
    assert (
        least_meeting_time(EGO_BOX, 5.0, AXLE, other_box(6, 0)[None], np.zeros(1, np.bool_), True, np.array([0.5]))
        == math.inf
    )


def test_minimum_speed_compares_each_quarter_with_the_traffic() -> None:
    slow = np.where(np.arange(101) < 50, 20.0, 5.0)
    assert min_speed_shares(cruise(traffic_mps=slow)) == pytest.approx((0.5, 0.5))
    assert min_speed_shares(cruise(traffic_mps=np.full(101, np.nan))) == ()
    assert min_speed_shares(cruise(traffic_mps=np.zeros(101))) == ()
    halfway = np.full(61, 20.0)
    assert min_speed_shares(cruise(61, traffic_mps=halfway)) == pytest.approx((0.5, 0.5))  # 60 of 100 m
    assert min_speed_shares(cruise(95, traffic_mps=np.full(95, 20.0))) == pytest.approx((0.5,) * 3)
    assert min_speed_shares(cruise(97, traffic_mps=np.full(97, 20.0))) == pytest.approx((0.5,) * 4)
    assert min_speed_shares(cruise(speed=0.0, traffic_mps=np.full(101, 3.0))) == ()


def test_lanes_left_are_a_share_of_the_distance() -> None:
    flags = np.arange(101) % 4 == 0
    record = route_record(cruise(off_lanes=flags))
    assert record.off_lane_share == pytest.approx(0.25)
    assert route_record(cruise(off_lanes=flags, in_junction=~flags | flags)).off_lane_share == 0.0
    assert route_record(cruise(against_flow=flags, wrong_way=flags)).off_lane_share == pytest.approx(0.25)
    assert route_record(cruise(against_flow=flags)).off_lane_share == 0.0


def test_windows_are_compared_where_and_not_when() -> None:
    """An ego that waits 8 s and then drives as the expert does has the expert's progress in the windows it drives in."""
    expert = cruise()
    late = track_of([step_at(k, max(0.0, k - 80.0), 10.0 if k > 80 else 0.0) for k in range(181)])
    progress = [scores.ep for _, _, scores in score_episode(late, expert).windows]
    assert progress == pytest.approx([0.0, 0.0, 1.0, 1.0, 1.0])


def test_who_waits_a_little_further_on_than_the_expert_is_compared_with_its_waiting() -> None:
    """Both drive to a red light, wait until 16 s and go on; the ego stands 2 m closer to the line."""

    def waiting(at_m: float) -> Track:
        way = [min(float(k), at_m) if k <= 160 else at_m + k - 160 for k in range(241)]
        return track_of([step_at(k, x, 10.0 * (x != way[k - 1])) for k, x in enumerate(way)])

    for ego, expert in ((52.0, 50.0), (50.0, 52.0)):
        windows = score_episode(waiting(ego), waiting(expert)).windows
        assert [scores.ep for _, _, scores in windows] == pytest.approx([1.0] * 6, abs=0.21)
        assert [scores.ep for _, _, scores in windows][2:4] == [1.0, 1.0]


def test_a_window_is_a_scene_of_its_own() -> None:
    """Whoever was hit in one window and is hit again in the next counts in both, and not in the one that begins on contact."""
    ahead = [one_actor(0.5 * k + 4.0, 0.0, 2.0) for k in range(161)]
    steps = [step_at(k, 0.5 * k, 5.0, touching(3) if k in {20, 30, 60} else ROOMY, ahead[k]) for k in range(161)]
    track = replace(track_of(steps), ttc_s=np.full(161, np.inf), pdm_ttc_s=np.full(161, np.inf))
    scores = score_episode(track, cruise(161))
    assert [window.nc for _, _, window in scores.windows] == [0.0, 0.0, 1.0, 1.0]
    assert [window.ttc for _, _, window in scores.windows] == [0.0, 0.0, 1.0, 1.0]
    assert scores.nuplan.nc == 0.0


def test_comfort_of_a_window_looks_back_in_the_extended_score_alone() -> None:
    """Hard braking just before the second window."""
    braked = np.zeros(121)
    braked[34:37] = -7.0
    scores = score_episode(cruise(121, acceleration_mps2=braked), cruise(121))
    assert [window.hc for _, _, window in scores.windows] == [0.0, 0.0, 1.0]
    assert [window.c for _, _, window in scores.windows] == [1.0, 1.0, 1.0]
    assert scores.nuplan.c == 0.0


def test_a_corner_beside_the_road_is_too_much_for_navsim_and_not_for_nuplan() -> None:
    off = np.where(np.arange(121) == 60, 0.2, 0.0)
    scores = score_episode(cruise(121, off_drivable_m=off), cruise(121))
    assert scores.nuplan.dac == 1.0
    assert [window.dac for _, _, window in scores.windows] == [1.0, 0.0, 1.0]


def test_figures_over_distance_and_time() -> None:
    assert per_100_km(3, 50_000.0) == 6.0
    assert math.isnan(per_100_km(0, 0.0))
    assert mean_time_between(4, 100.0) == 25.0
    assert mean_time_between(0, 100.0) == math.inf
    latency = latency_of([0.001] * 99 + [0.101])
    assert latency.mean_ms == pytest.approx(2.0)
    assert 1.0 <= latency.p99_ms <= 101.0
    assert latency_of([]).mean_ms == 0.0
    assert episode_rates(cruise()).energy_kj_per_kg_km == pytest.approx(0.12 + 0.0004 * 100)


def test_the_oncoming_lane_is_no_fault_where_the_own_one_is_blocked() -> None:
    """As in CARLA, whose scenarios switch the test of direction off beside what stands in the way."""
    config = EnvConfig.of(scenario="blocked_lane", observation="privileged", end_on_infraction=False)
    observer = TrackObserver()
    run_episodes(DriveBatch(config, 1), RouteFollower(), [0], lambda seed: [observer])
    track = observer.track()
    assert track.arrived
    assert track.against_flow.any()
    assert not track.wrong_way.any()
    assert "wrong_way" not in {infraction.kind for infraction in track.infractions}
    assert route_record(track).off_lane_share == 0.0
    fault = replace(track, wrong_way=track.against_flow)
    assert route_record(fault).off_lane_share > 0.01
