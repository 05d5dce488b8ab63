"""ROS messages in our terms, in bags written by the rosbags library; layouts and encodings of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rosbags.rosbag2 import Writer
from rosbags.rosbag2.enums import StoragePlugin
from rosbags.typesys import Stores, get_typestore

from perception.geometry import inverse, quaternion_from_rotation, rotation_from_euler, se2_as_se3, se3
from sim.logs.log import LogSummary
from sim.logs.mounting import BODY_FROM_OPTICAL, FrameTree
from sim.logs.point_cloud import cloud_of_fields
from sim.logs.reader import open_log
from sim.logs.recorded import MessageError, RawMessage, RecordedPicture, RecordedTransform
from sim.logs.recording import ReadOptions, sensor_name
from sim.logs.ros import decode_ros
from sim.step import Step

STORE = get_typestore(Stores.ROS2_HUMBLE)
T = STORE.types
SECOND_NS = 1_000_000_000


def message_header(time_ns: int, frame_id: str) -> Any:
    stamp = T["builtin_interfaces/msg/Time"](sec=time_ns // SECOND_NS, nanosec=time_ns % SECOND_NS)
    return T["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def cloud(time_ns: int, frame_id: str, points: NDArray[Any]) -> Any:
    """PointCloud2 of a structured array, as its dtype lays it out."""
    kinds = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}
    field_type = T["sensor_msgs/msg/PointField"]
    fields = []
    assert points.dtype.fields is not None
    for name, (dtype, offset, *_) in points.dtype.fields.items():
        fields.append(field_type(name=name, offset=offset, datatype=kinds[dtype.str[1:]], count=1))
    return T["sensor_msgs/msg/PointCloud2"](
        header=message_header(time_ns, frame_id), height=1, width=len(points), fields=fields, is_bigendian=False,
        point_step=points.dtype.itemsize, row_step=points.nbytes, data=points.view(np.uint8).reshape(-1), is_dense=False,
    )  # fmt: skip


def camera_info(time_ns: int, frame_id: str, model: str = "plumb_bob", d: Any = (), **other: Any) -> Any:
    k = np.array([50.0, 0, 31.5, 0, 50.0, 15.5, 0, 0, 1])
    p = np.array([40.0, 0, 30.0, 0, 0, 40.0, 15.0, 0, 0, 0, 1, 0])
    region = T["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    fields = {"height": 32, "width": 64, "k": k, "binning_x": 0, "binning_y": 0} | other
    return T["sensor_msgs/msg/CameraInfo"](
        header=message_header(time_ns, frame_id), distortion_model=model, d=np.array(d, np.float64),
        r=np.eye(3).ravel(), p=p, roi=region, **fields,
    )  # fmt: skip


def jpeg(time_ns: int, frame_id: str, picture: NDArray[np.uint8]) -> Any:
    data = cv2.imencode(".png", picture[..., ::-1])[1].reshape(-1)
    return T["sensor_msgs/msg/CompressedImage"](header=message_header(time_ns, frame_id), format="png", data=data)


def tf(time_ns: int, *transforms: tuple[str, str, NDArray[np.float64]]) -> Any:
    vector, quaternion = T["geometry_msgs/msg/Vector3"], T["geometry_msgs/msg/Quaternion"]
    stamped = []
    for parent, child, matrix in transforms:
        x, y, z, w = quaternion_from_rotation(matrix[:3, :3]).tolist()
        body = T["geometry_msgs/msg/Transform"](
            translation=vector(*matrix[:3, 3].tolist()), rotation=quaternion(x=x, y=y, z=z, w=w)
        )
        stamped.append(
            T["geometry_msgs/msg/TransformStamped"](
                header=message_header(time_ns, parent), child_frame_id=child, transform=body
            )
        )
    return T["tf2_msgs/msg/TFMessage"](transforms=stamped)


def write_bag(path: Path, messages: list[tuple[str, int, Any]], storage: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """A rosbag2 folder of (topic, log time in ns, message)."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        connections: dict[str, Any] = {}
        for topic, time_ns, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=STORE)
            writer.write(connections[topic], time_ns, STORE.serialize_cdr(message, message.__msgtype__))
    return path


def read(path: Path, options: ReadOptions | None = None) -> tuple[list[Step], str]:
    with open_log(path, options) as log:
        steps = list(log.steps())
        return steps, "\n".join(log.summary.lines())


POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")])


def points_of(rows: list[tuple[float, ...]], dtype: np.dtype[Any] = POINT) -> NDArray[Any]:
    return np.array(rows, dtype)


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_unsorted_bag_gives_frames_in_order(tmp_path: Path, storage: StoragePlugin) -> None:
    """Messages written in any order; stamps in the headers differ from log times; one camera stops, one never starts."""
    camera_pose = se3([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [1.0, 0.2, 1.5])
    lidar_pose = se3(rotation_from_euler(0.4), [0.5, 0.0, 1.8])
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 64, 3), np.uint8)
    messages = [("/tf_static", SECOND_NS, tf(SECOND_NS, ("base_link", "mount", lidar_pose),
                                             ("mount", "cam", inverse(lidar_pose) @ camera_pose)))]  # fmt: skip
    for k in range(10):
        at = SECOND_NS + k * 100_000_000
        messages.append(("/top/points", at + 7_000_000, cloud(at, "mount", points_of([(k, 0, 0, 100)]))))
        if k < 3:
            messages.append(("/cam/image/compressed", at - 20_000_000, jpeg(at - 30_000_000, "cam", pictures[k])))
    messages.append(("/cam/camera_info", 3 * SECOND_NS, camera_info(3 * SECOND_NS, "cam")))
    order = np.random.default_rng(1).permutation(len(messages))
    steps, problems = read(write_bag(tmp_path / "bag", [messages[i] for i in order], storage))
    assert [s.timestamp_us for s in steps] == [1_000_000 + k * 100_000 for k in range(10)]
    sweeps = [s.frame.lidars["top"] for s in steps]
    assert [sweep.points[0, 0] for sweep in sweeps if sweep] == list(range(10))
    assert sweeps[0] is not None
    np.testing.assert_allclose(sweeps[0].ego_from_lidar, lidar_pose, atol=1e-12)
    for k, step in enumerate(steps):
        camera = step.frame.cameras["cam"]
        assert (camera is None) == (k > 3), "older than 0.2 s is silence"
        if camera is not None:
            assert np.array_equal(camera.image, pictures[min(k, 2)])
            np.testing.assert_allclose(camera.calibration.ego_from_camera, camera_pose, atol=1e-12)
            assert step.frame.sensor_age_us()["cam"] == (30_000 if k < 3 else 130_000)
    assert "no odometry" in problems
    assert steps[0].frame.ego is None
    assert steps[0].action is None


def test_damaged_messages_are_skipped_and_counted(tmp_path: Path) -> None:
    """NaN points, a picture that does not decode, one of another size, and a camera without calibration."""
    good = np.zeros((32, 64, 3), np.uint8)
    broken = jpeg(2 * SECOND_NS, "cam", good)
    broken.data = broken.data[:40].copy()
    messages = [
        ("/front/camera_info", 1, camera_info(1, "cam")),
        ("/front/image", SECOND_NS, jpeg(SECOND_NS, "cam", good)),
        ("/front/image", 2 * SECOND_NS, broken),
        ("/front/image", 3 * SECOND_NS, jpeg(3 * SECOND_NS, "cam", good[:16])),
        ("/rear/image", SECOND_NS, jpeg(SECOND_NS, "cam2", good)),
        *(("/points", k * SECOND_NS, cloud(k * SECOND_NS, "lidar", points_of([(np.nan, 0, 0, 0), (1, 2, 3, 0.5)])))
          for k in (1, 2, 3)),
    ]  # fmt: skip
    steps, problems = read(write_bag(tmp_path / "bag", messages))
    assert [s.frame.cameras["front"] is None for s in steps] == [False, True, True]
    assert all(len(s.frame.lidars["lidar"].points) == 1 for s in steps if s.frame.lidars["lidar"])
    assert "/points: point that is not finite (3 times)" in problems
    assert "picture does not decode" in problems
    assert "picture is 64x16, but its calibration is for 64x32" in problems
    assert "/rear/image: left out, as no CameraInfo" in problems
    assert "no /tf in the recording" in problems


@settings(max_examples=40, deadline=None)
@given(
    formats=st.permutations(["x", "y", "z", "intensity", "ring"]),
    kind=st.sampled_from(["<f4", "<f8", "<i2"]),
    pad=st.integers(0, 7),
    rows=st.lists(st.tuples(*[st.integers(-300, 300)] * 5), max_size=12),
    big_endian=st.booleans(),
)
def test_any_layout_of_fields_gives_the_same_points(
    formats: list[str], kind: str, pad: int, rows: list[tuple[int, ...]], big_endian: bool
) -> None:
    kind = kind.replace("<", ">") if big_endian else kind
    size = np.dtype(kind).itemsize
    offsets = {name: pad + (size + 1) * k for k, name in enumerate(formats)}
    dtype = np.dtype(
        {"names": formats, "formats": [kind] * 5, "offsets": list(offsets.values()), "itemsize": 5 * (size + 1) + pad}
    )
    packed = np.zeros(len(rows), dtype)
    for k, name in enumerate(["x", "y", "z", "intensity", "ring"]):
        packed[name] = [row[k] for row in rows]
    fields = {name: (offset, kind) for name, offset in offsets.items()}
    data = np.frombuffer(packed.tobytes(), np.uint8)
    out = cloud_of_fields("lidar", 5, data, fields, dtype.itemsize, len(rows))
    assert np.array_equal(out.points, np.array([row[:4] for row in rows], np.float32).reshape(-1, 4))
    assert (out.timestamp_us, out.dropped) == (5, 0)


@pytest.mark.parametrize(
    ("name", "kind", "values", "stamp_us", "end_us", "offsets"),
    [
        ("t", "<f4", [-0.1, 0.0], 1_000_000, 1_000_000, [-100_000, 0]),
        ("time", "<f4", [0.0, 0.1], 1_000_000, 1_100_000, [-100_000, 0]),
        ("t", "<u4", [0, 99_000_000], 1_000_000, 1_099_000, [-99_000, 0]),
        ("timestamp", "<f8", [1.6e9, 1.6e9 + 0.05], 1_600_000_000_000_000, 1_600_000_000_050_000, [-50_000, 0]),
        ("timestamp", "<f8", [1.6e18, 1.6e18 + 5e7], 1_600_000_000_000_000, 1_600_000_000_050_000, [-50_000, 0]),
    ],
)
def test_point_times_of_every_driver_give_the_end_of_the_sweep(
    name: str, kind: str, values: list[float], stamp_us: int, end_us: int, offsets: list[int]
) -> None:
    packed = np.zeros(2, np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), (name, kind)]))
    packed[name] = values
    fields = {"x": (0, "<f4"), "y": (4, "<f4"), "z": (8, "<f4"), name: (12, kind)}
    data = packed.view(np.uint8).reshape(-1)
    out = cloud_of_fields("lidar", stamp_us, data, fields, packed.dtype.itemsize, 2)
    assert out.timestamp_us == pytest.approx(end_us, abs=1)
    assert out.time_offset_us is not None
    np.testing.assert_allclose(out.time_offset_us, offsets, atol=1)


@pytest.mark.parametrize("unset", [0, 1, 3])
def test_point_times_of_an_unknown_unit_cost_no_points(unset: int) -> None:
    """Microseconds since the epoch, which we do not know; some points have none, and zero is near every stamp if relative."""
    packed = np.ones(8, np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("timestamp", "<u8")]))
    packed["timestamp"] = 1_600_000_000_000_000
    packed["timestamp"][:unset] = 0
    fields = {"x": (0, "<f4"), "y": (4, "<f4"), "z": (8, "<f4"), "timestamp": (12, "<u8")}
    out = cloud_of_fields(
        "lidar", 1_600_000_000_000_000, packed.view(np.uint8).reshape(-1), fields, packed.dtype.itemsize, 8
    )
    assert len(out.points) == 8
    assert out.time_offset_us is None
    assert out.timestamp_us == 1_600_000_000_000_000


def test_cloud_that_does_not_fit_its_bytes_is_refused() -> None:
    fields = {"x": (0, "<f4"), "y": (4, "<f4"), "z": (8, "<f4")}
    data = np.zeros(24, np.uint8)
    for arguments in ((12, 3), (0, 1), (8, 2), (12, 2**40)):
        with pytest.raises(MessageError):
            cloud_of_fields("lidar", 0, data, fields, *arguments)
    with pytest.raises(MessageError, match="no field 'z'"):
        cloud_of_fields("lidar", 0, data, {"x": (0, "<f4"), "y": (4, "<f4")}, 12, 2)


@pytest.mark.parametrize("largest", [1.0, 255.0, 65535.0])
def test_intensity_comes_to_unit_range(tmp_path: Path, largest: float) -> None:
    rows = points_of([(1, 1, 1, largest), (1, 1, 1, largest / 2), (1, 1, 1, -1.0)])
    steps, _ = read(write_bag(tmp_path / "bag", [("/points", SECOND_NS, cloud(SECOND_NS, "lidar", rows))]))
    sweep = steps[0].frame.lidars["lidar"]
    assert sweep is not None
    np.testing.assert_allclose(sweep.points[:, 3], [1.0, 0.5, 0.0], atol=1e-6)


def test_second_camera_of_a_name_that_a_lidar_has_is_said_to_be_left_out(tmp_path: Path) -> None:
    """The LiDAR `front` has most messages, then a camera takes `front_camera`; the other must not replace it."""
    picture = np.zeros((32, 64, 3), np.uint8)
    messages = [("/front/camera_info", 1, camera_info(1, "cam"))]
    for k in range(1, 4):
        at = k * SECOND_NS
        messages.append(("/front/points", at, cloud(at, "lidar", points_of([(1, 2, 3, 1)]))))
        if k < 3:
            messages.append(("/front/image", at, jpeg(at, "cam", picture)))
    messages.append(("/front/image/compressed", 3 * SECOND_NS, jpeg(3 * SECOND_NS, "cam", picture)))
    steps, problems = read(write_bag(tmp_path / "bag", messages))
    assert [step.frame.cameras["front_camera"] is not None for step in steps] == [True, True, False]
    assert "/front/image/compressed: left out, taken for the same camera as /front/image" in problems


def test_calibration_of_the_nearest_folder_is_taken(tmp_path: Path) -> None:
    """Not the one whose whole topic is longest."""
    picture = np.zeros((32, 64, 3), np.uint8)
    near = np.array([60.0, 0, 31.5, 0, 60.0, 15.5, 0, 0, 1])
    messages = [
        ("/rig/left/camera_info", 1, camera_info(1, "cam", k=near)),
        ("/rig/camera_info_of_all_that_have_none", 1, camera_info(1, "cam")),
        ("/rig/left/image", SECOND_NS, jpeg(SECOND_NS, "cam", picture)),
    ]
    steps, _ = read(write_bag(tmp_path / "bag", messages))
    camera = steps[0].frame.cameras["rig_left"]
    assert camera is not None
    assert camera.calibration.intrinsics[0, 0] == 60.0


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=200), st.sampled_from(["Image", "CompressedImage", "PointCloud2", "CameraInfo"]), st.booleans()
)
def test_random_bytes_as_messages_raise_only_message_errors(data: bytes, name: str, ros1: bool) -> None:
    message = RawMessage("/t", f"sensor_msgs/msg/{name}", 0, data)
    try:
        out = decode_ros(message, ros1=ros1)
        if isinstance(out, RecordedPicture):
            out.pixels(4, 4)
    except MessageError as error:
        text = str(error)
    else:
        text = "decoded"
    assert "\n" not in text


def test_tree_of_frames_agrees_with_products_of_its_edges() -> None:
    random = np.random.default_rng(3)
    edges = [se3(rotation_from_euler(*random.normal(size=3).tolist()), random.normal(size=3)) for _ in range(4)]
    tree = FrameTree("base_link", LogSummary())
    names = [("map", "base_link"), ("base_link", "roof"), ("roof", "lidar"), ("rack", "roof")]
    tree.add(RecordedTransform(parent, child, 0, edge) for (parent, child), edge in zip(names, edges, strict=True))
    np.testing.assert_allclose(tree.base_from("lidar"), edges[1] @ edges[2], atol=1e-12)
    np.testing.assert_allclose(tree.base_from("rack"), edges[1] @ inverse(edges[3]), atol=1e-12)
    np.testing.assert_allclose(tree.base_from("map"), inverse(edges[0]), atol=1e-12)
    assert tree.base_from("moon") is None


def test_camera_in_a_body_frame_is_turned_to_optical_axes() -> None:
    summary = LogSummary()
    tree = FrameTree("base_link", summary)
    mount = se2_as_se3(1.0, 0.5, 0.3, 1.5)
    tree.add([RecordedTransform("base_link", "cam", 0, mount)])
    tree.add([RecordedTransform("base_link", "cam_optical", 0, mount @ BODY_FROM_OPTICAL)])
    turned = tree.ego_from_camera("/cam", "cam")
    optical = tree.ego_from_camera("/cam", "cam_optical")
    assert turned is not None
    assert optical is not None
    np.testing.assert_allclose(turned, optical, atol=1e-12)
    assert len(summary.warnings) == 1
    assert "z up" in summary.warnings[0]


def test_frames_whose_names_begin_with_a_slash_are_those_of_tf(tmp_path: Path) -> None:
    """As drivers of old ROS 1 wrote them; tf2 names frames without."""
    mount = se2_as_se3(1.0, 0.0, 0.0, 2.0)
    messages = [
        ("/tf_static", 1, tf(1, ("/base_link", "/lidar", mount), ("base_link", "cam", mount @ BODY_FROM_OPTICAL))),
        ("/cam/camera_info", 1, camera_info(1, "/cam")),
        ("/cam/image", SECOND_NS, jpeg(SECOND_NS, "/cam", np.zeros((32, 64, 3), np.uint8))),
        ("/points", SECOND_NS, cloud(SECOND_NS, "/lidar", points_of([(1, 2, 3, 1)]))),
    ]
    steps, _ = read(write_bag(tmp_path / "bag", messages))
    camera, sweep = steps[0].frame.cameras["cam"], steps[0].frame.lidars["lidar"]
    assert camera is not None
    assert sweep is not None
    np.testing.assert_allclose(camera.calibration.ego_from_camera, mount @ BODY_FROM_OPTICAL, atol=1e-12)
    np.testing.assert_allclose(sweep.ego_from_lidar, mount, atol=1e-12)


def test_a_transform_that_is_no_pose_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    """Without them the LiDAR would be taken for the ego frame itself."""
    mount = se2_as_se3(1.0, 0.0, 0.0, 2.0)
    message = tf(1, ("base_link", "never_set", np.eye(4)), ("base_link", "lidar", mount))
    message.transforms[0].transform.rotation.w = 0.0
    messages = [
        ("/tf_static", 1, message),
        ("/points", SECOND_NS, cloud(SECOND_NS, "lidar", points_of([(1, 2, 3, 1)]))),
    ]
    steps, problems = read(write_bag(tmp_path / "bag", messages))
    sweep = steps[0].frame.lidars["lidar"]
    assert sweep is not None
    np.testing.assert_allclose(sweep.ego_from_lidar, mount, atol=1e-12)
    assert "/tf_static: transform that is no pose (1 times)" in problems


@pytest.mark.parametrize(
    ("topic", "name"),
    [
        ("/camera/front/image/compressed", "front"),
        ("/lidar/points", "lidar"),
        ("/sensing/lidar/top/pointcloud", "top"),
        ("/cam_left/image_raw", "cam_left"),
    ],
)
def test_sensor_names_come_from_topics(topic: str, name: str) -> None:
    assert sensor_name(topic, "lidar" if "lidar" in topic else "camera") == name
