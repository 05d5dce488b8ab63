"""Real recordings read from every container: PandaSet in four of them, a bag of nearly every type, and damaged ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sim_logs_reader import FUZZ, read, read_or_error

from perception.geometry import inverse, rotation_from_euler, se3, transform
from sim.logs.log import LogError
from sim.logs.reader import open_log
from sim.logs.recording import ReadOptions
from sim.step import Step


def check_pandaset(steps: list[Step], frames: int) -> None:
    assert len(steps) == frames
    for step in steps:
        frame = step.frame
        front, sweep = frame.cameras["front"], frame.lidars["lidar"]
        assert front is not None
        assert sweep is not None
        assert front.image.shape == (1080, 1920, 3)
        assert 52_000 < len(sweep.points) < 54_000
        assert 49_000 < frame.sensor_age_us()["front"] < 53_000
        assert frame.sensor_age_us()["lidar"] == 0
        assert 0 <= sweep.points[:, 3].min() < 0.05
        assert 0.9 < sweep.points[:, 3].max() <= 1
        assert sweep.time_offset_us is not None
        assert -110_000 < sweep.time_offset_us.min() < sweep.time_offset_us.max() == 0
        assert frame.ego is not None
        assert 2.3 < frame.ego.speed_mps < 4.2
        assert frame.route_in_ego is not None
    assert [s.timestamp_us for s in steps] == sorted(s.timestamp_us for s in steps)


@pytest.mark.parametrize(
    ("name", "frames", "kind"),
    [
        ("ros2_mcap", 12, "ROS 2 MCAP"),
        ("ros2_mcap/ros2_mcap.mcap", 12, "ROS 2 MCAP"),
        ("ros2_db3", 3, "ROS 2 bag"),
        ("ros2_db3/ros2_db3.db3", 3, "ROS 2 bag"),
        ("ros1.bag", 3, "ROS 1 bag"),
    ],
)
def test_pandaset_reads_from_every_container(shared_data: Path, name: str, frames: int, kind: str) -> None:
    with open_log(shared_data / "pandaset" / name) as log:
        steps = list(log.steps())
        assert log.kind == kind
        assert log.header is None
        assert log.actions_estimated
        assert log.summary.lines() == []
    check_pandaset(steps, frames)


def test_pandaset_points_lie_in_the_boxes_that_people_drew(shared_data: Path) -> None:
    """Labels are in `base_link`: cars within 25 m hold points, and the same boxes turned by 90 degrees hold few.
    The road between the car and the one ahead is at z = 0, and below the horizon in the picture."""
    steps, _ = read(shared_data / "pandaset" / "ros2_mcap")
    sweep, front = steps[0].frame.lidars["lidar"], steps[0].frame.cameras["front"]
    assert sweep is not None
    assert front is not None
    points = transform(sweep.ego_from_lidar, sweep.points[:, :3])
    labels = json.loads((shared_data / "pandaset" / "boxes.json").read_text())[0]["boxes"]
    boxes = [b for b in labels if b["label"] == "Car" and np.hypot(*b["center_in_base_link_m"][:2]) < 25]
    assert len(boxes) >= 5

    def inside(turned_rad: float) -> int:
        held = 0
        for box in boxes:
            ego_from_box = se3(rotation_from_euler(box["yaw_in_base_link_rad"]), box["center_in_base_link_m"])
            turned = transform(se3(rotation_from_euler(turned_rad), [0, 0, 0]), points)
            in_box = np.abs(transform(inverse(ego_from_box), turned))
            held += (in_box < np.array(box["length_width_height_m"]) / 2).all(axis=1).sum() >= 20
        return held

    assert inside(0.0) >= 0.8 * len(boxes)
    assert inside(np.pi / 2) < 0.5 * len(boxes)
    road = points[(points[:, 0] > 4) & (points[:, 0] < 8) & (np.abs(points[:, 1]) < 1.5)]
    assert len(road) > 50
    assert np.abs(np.median(road[:, 2])) < 0.15
    pixels = transform(inverse(front.calibration.ego_from_camera), road) @ front.calibration.intrinsics.T
    assert (pixels[:, 2] > 0).all()
    assert (pixels[:, 1] / pixels[:, 2] > front.calibration.intrinsics[1, 2]).all()


def test_pandaset_action_and_route_are_those_of_the_drive(shared_data: Path) -> None:
    """It drives off straight ahead: throttle, hardly any steering, a route ahead; the last action is not known."""
    steps, _ = read(shared_data / "pandaset" / "ros2_mcap")
    actions = [step.action for step in steps[:-1]]
    assert steps[-1].action is None
    assert all(action is not None and abs(action.steer) < 0.05 for action in actions)
    assert np.mean([action.throttle for action in actions if action is not None]) > 0.3
    route = steps[0].frame.route_in_ego
    assert route is not None
    assert route[0, 0] == pytest.approx(2.5, abs=0.05)
    assert np.abs(route[:, 1]).max() < 0.2
    assert (route[5:] == route[-1]).all()


def test_pandaset_cut_in_the_middle_reads_up_to_there(shared_data: Path, tmp_path: Path) -> None:
    data = (shared_data / "pandaset" / "ros2_mcap" / "ros2_mcap.mcap").read_bytes()
    path = tmp_path / "cut.mcap"
    path.write_bytes(data[: len(data) * 6 // 10])
    steps, problems = read(path)
    check_pandaset(steps, len(steps))
    assert 5 <= len(steps) <= 8
    assert any("cut off" in line for line in problems)


def test_base_frame_and_topics_are_checked(shared_data: Path) -> None:
    path = shared_data / "pandaset" / "ros2_mcap"
    with pytest.raises(LogError, match=r"no frame 'rear_axle'.*base_link, front_camera, lidar, map"):
        read(path, ReadOptions(base_frame="rear_axle"))
    with pytest.raises(LogError, match=r"topic '/radar'.*/camera/front/image/compressed"):
        open_log(path, ReadOptions(topics=("/radar",)))
    with pytest.raises(LogError, match=r"'radar'.*front, lidar|'radar'.*lidar, front"):
        open_log(path, ReadOptions(trigger="radar"))
    steps, _ = read(path, ReadOptions(trigger="front"))
    assert len(steps) == 12
    assert steps[0].frame.lidars["lidar"] is None
    assert steps[1].frame.sensor_age_us()["lidar"] == pytest.approx(49_000, abs=2000)
    steps, _ = read(path, ReadOptions(max_age_us=40_000))
    assert all(step.frame.cameras["front"] is None for step in steps)


def test_rosbag2_with_nearly_every_type(shared_data: Path) -> None:
    (path,) = (shared_data / "containers" / "rerun").glob("*.mcap")
    steps, problems = read(path)
    assert len(steps) == 1
    camera, sweep = steps[0].frame.cameras["camera"], steps[0].frame.lidars["lidar"]
    assert camera is not None
    assert sweep is not None
    assert camera.image.std() > 10
    assert sweep.points.shape == (200, 4)
    assert any("z up" in line for line in problems)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("containers/rosbag_js/fixtures/empty-file.bag", "is empty"),
        ("containers/rosbag_js/fixtures/no-messages.bag", "holds no messages"),
        ("containers/rosbag_js/fixtures/example.bag", "/turtle1/pose"),
        ("containers/rosbag_js/fixtures/example-bz2.bag", "/turtle1/pose"),
        ("containers/rosbag_js/fixtures/example-lz4.bag", "/turtle1/pose"),
        ("containers/rosbag_js/fixtures/example-unsorted-chunks.bag", "std_msgs/msg/String"),
        ("velodyne/vlp16/1673400471837873222", "/velodyne_packets (velodyne_msgs/msg/VelodyneScan)"),
        ("velodyne/vlp32/1713492677464078412", "velodyne_msgs/msg/VelodyneScan"),
        ("ouster/bad_crc32.osf", "no log that we read"),
        ("pandaset", "metadata.yaml"),
    ],
)
def test_recordings_without_readable_sensors_say_why(shared_data: Path, name: str, said: str) -> None:
    message = read_or_error(shared_data / name)
    assert said in message
    assert "steps" not in message.split(";")[0] or "0 steps" in message


@settings(FUZZ, max_examples=25)
@given(name=st.sampled_from(["ros1.bag", "ros2_db3/ros2_db3.db3", "ros2_mcap/ros2_mcap.mcap"]), data=st.data())
def test_damaged_recordings_never_break_the_reader(
    shared_data: Path, tmp_path: Path, name: str, data: st.DataObject
) -> None:
    whole = (shared_data / "pandaset" / name).read_bytes()[: 4 << 20]
    damaged = bytearray(whole[: data.draw(st.integers(1, len(whole)))])
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=20)):
        damaged[at] ^= 0xFF
    path = tmp_path / Path(name).name
    path.write_bytes(bytes(damaged))
    read_or_error(path)
