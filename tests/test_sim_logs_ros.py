"""ROS messages in our terms, in bags written by the rosbags library; layouts and encodings of every kind."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rosbags import rosbag1
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import Writer
from rosbags.rosbag2.enums import StoragePlugin
from rosbags.typesys import Stores, get_typestore

from perception.geometry import inverse, quaternion_from_rotation, rotation_from_euler, se2_as_se3, se3, transform
from perception.sensors import ROUTE_SPACING_M
from sim.dynamics import SEDAN, advance_ego
from sim.logs.log import LogError, LogSummary
from sim.logs.mounting import BODY_FROM_OPTICAL, FrameTree
from sim.logs.odometry import Odometry, odometry_from_samples
from sim.logs.pictures import PictureError, decode_picture, picture_size
from sim.logs.point_cloud import cloud_of_fields
from sim.logs.reader import open_log
from sim.logs.recorded import MessageError, RawMessage, RecordedCalibration, RecordedPicture, RecordedTransform
from sim.logs.recording import ReadOptions, sensor_name
from sim.logs.ros import decode_ros, raw_pixels
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


def write_ros1_bag(path: Path, messages: list[tuple[str, int, Any]], compression: Any, chunk_bytes: int = 1) -> Path:
    """A ROS 1 bag of (topic, log time in ns, message of ROS 2), by default with a chunk for each message."""
    store = get_typestore(Stores.ROS1_NOETIC)
    writer = Ros1Writer(path)
    writer.set_compression(compression)
    writer.chunk_threshold = chunk_bytes
    with writer:
        connections: dict[str, Any] = {}
        for topic, time_ns, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=store)
            data = STORE.cdr_to_ros1(STORE.serialize_cdr(message, message.__msgtype__), message.__msgtype__)
            writer.write(connections[topic], time_ns, data)
    return path


def test_a_bag_that_lacks_the_wanted_topic_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = cloud(SECOND_NS, "lidar", points_of([(1, 2, 3, 1)]))
    path = write_ros1_bag(tmp_path / "a.bag", [("/points", SECOND_NS, message)], Ros1Writer.CompressionFormat.LZ4)
    closed: list[Path] = []
    close = rosbag1.Reader.close

    def counted_close(reader: rosbag1.Reader) -> None:
        closed.append(Path(str(reader.path)))
        close(reader)

    monkeypatch.setattr(rosbag1.Reader, "close", counted_close)
    with pytest.raises(LogError, match="no camera or LiDAR topic"):
        open_log(path, ReadOptions(topics=("/other",)))
    assert closed == [path]


@pytest.mark.parametrize("compression", list(Ros1Writer.CompressionFormat))
def test_damaged_chunk_of_a_ros1_bag_ends_the_recording_there(tmp_path: Path, compression: Any) -> None:
    """Sweeps and odometry in turns: the first pass meets the damage too, and what comes before it is read nevertheless."""
    messages = []
    for k in range(1, 9):
        at = k * SECOND_NS // 10
        messages.append(("/points", at, cloud(at, "lidar", points_of([(k, 2, 3, 1)]))))
        messages.append(("/front/camera_info", at + 1, camera_info(at, "cam")))
    path = write_ros1_bag(tmp_path / "a.bag", messages, compression)
    with rosbag1.Reader(path) as reader:
        chunk = [reader.chunks[position] for position in sorted(reader.chunks)][12]
    data = bytearray(path.read_bytes())
    data[chunk.datapos : chunk.datapos + chunk.datasize] = bytes(chunk.datasize)
    path.write_bytes(bytes(data))
    steps, problems = read(path)
    assert [step.frame.lidars["lidar"].points[0, 0] for step in steps if step.frame.lidars["lidar"]] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    assert "a.bag is damaged" in problems
    assert "the rest of it is left out" in problems


@pytest.mark.parametrize("compression", list(Ros1Writer.CompressionFormat))
@pytest.mark.parametrize("announced", [100, 2**32 - 1])
def test_chunks_of_a_ros1_bag_unpack_to_what_they_announce(tmp_path: Path, compression: Any, announced: int) -> None:
    """Eight million zeros in a few kilobytes, announced as less and as more."""
    picture = np.zeros((1, 1, 3), np.uint8)
    bomb = jpeg(1, "cam", picture)
    bomb.data = np.zeros(8 << 20, np.uint8)
    path = write_ros1_bag(tmp_path / "a.bag", [("/front/camera_info", 1, camera_info(1, "cam")), ("/front/image", 2, bomb)],
                          compression)  # fmt: skip
    data = path.read_bytes()
    assert len(data) < 100_000
    at = data.rindex(b"size=") + 5
    path.write_bytes(data[:at] + announced.to_bytes(4, "little") + data[at + 4 :])
    tracemalloc.start()
    _, problems = read(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert f"announces {announced} bytes" in problems
    assert most < 6 << 20


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


def mosaic(rgb: NDArray[np.uint8], pattern: str) -> NDArray[np.uint8]:
    """What a Bayer sensor with that pattern (first row, second row) sees."""
    out = np.zeros(rgb.shape[:2], np.uint8)
    for k, letter in enumerate(pattern):
        row, column = divmod(k, 2)
        out[row::2, column::2] = rgb[row::2, column::2, "rgb".index(letter)]
    return out


@pytest.mark.parametrize(
    "encoding",
    ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"],
)
def test_raw_encodings_give_the_same_rgb(encoding: str) -> None:
    color = np.array([200, 100, 30], np.uint8)
    rgb = np.broadcast_to(color, (12, 16, 3)).copy()
    alpha = np.full((12, 16, 1), 9, np.uint8)
    pixels = {
        "rgb8": rgb, "bgr8": rgb[..., ::-1], "rgba8": np.dstack([rgb, alpha]),
        "bgra8": np.dstack([rgb[..., ::-1], alpha]), "mono8": rgb[..., 0],
    }  # fmt: skip
    picture = pixels[encoding] if encoding in pixels else mosaic(rgb, encoding[6:10])
    padded = np.zeros((12, picture[0].size + 5), np.uint8)
    padded[:, :-5] = np.ascontiguousarray(picture).reshape(12, -1)
    out = raw_pixels(padded.reshape(-1), encoding, 16, 12, padded.shape[1], (16, 12))
    expected = np.full_like(rgb, 200) if encoding == "mono8" else rgb
    assert np.abs(out[2:-2, 2:-2].astype(int) - expected[2:-2, 2:-2]).max() <= 1
    with pytest.raises(MessageError, match="does not fit"):
        raw_pixels(padded.reshape(-1)[:-6], encoding, 16, 12, padded.shape[1], (16, 12))
    with pytest.raises(MessageError, match="'yuv16' is not one of rgb8"):
        raw_pixels(padded.reshape(-1), "yuv16", 16, 12, padded.shape[1], (16, 12))


def calibration_of(message: Any, topic: str = "/cam/camera_info") -> RecordedCalibration:
    data = bytes(STORE.serialize_cdr(message, message.__msgtype__))
    out = decode_ros(RawMessage(topic, message.__msgtype__, 0, data), ros1=False)
    assert isinstance(out, RecordedCalibration)
    return out


def test_distortion_models_by_their_names() -> None:
    assert calibration_of(camera_info(0, "cam", "plumb_bob", [0.0] * 5)).distortion_model == "none"
    for model, d, ours in (
        ("plumb_bob", [0.1, 0.2, 0.3, 0.4, 0.5], "brown_conrady"),
        ("rational_polynomial", [0.1] * 8, "brown_conrady"),
        ("equidistant", [0.1] * 4, "kannala_brandt"),
    ):
        out = calibration_of(camera_info(0, "cam", model, d))
        assert out.distortion_model == ours
        assert out.distortion.tolist() == d
    with pytest.raises(MessageError, match="'thin_prism' is not one of"):
        calibration_of(camera_info(0, "cam", "thin_prism", [0.1]))
    for model, d in (("plumb_bob", [0.1] * 3), ("equidistant", [0.1] * 2)):
        with pytest.raises(MessageError, match=f"calibration of cam: .* coefficients .* got {len(d)}"):
            calibration_of(camera_info(0, "cam", model, d))
    with pytest.raises(MessageError, match="not calibrated"):
        calibration_of(camera_info(0, "cam", k=np.zeros(9)))


@pytest.mark.parametrize(
    ("image", "info", "rectified"),
    [
        ("/cam/image_rect", "/cam/camera_info", True),
        ("/cam/image_rect_color/compressed", "/cam/camera_info", True),
        ("/cam/image_rect/compressed", "/cam/image_rect/camera_info", True),
        ("/cam/image_raw", "/cam/camera_info", False),
        ("/direct/image_raw", "/direct/camera_info", False),
    ],
)
def test_rectified_pictures_take_their_own_intrinsics(tmp_path: Path, image: str, info: str, rectified: bool) -> None:
    """P without distortion, whatever the topic of the CameraInfo is called."""
    picture = np.zeros((32, 64, 3), np.uint8)
    messages = [
        (info, 1, camera_info(1, "cam", "plumb_bob", [0.1] * 5)),
        (image, SECOND_NS, jpeg(SECOND_NS, "cam", picture)),
    ]
    steps, _ = read(write_bag(tmp_path / "bag", messages))
    (camera,) = steps[0].frame.cameras.values()
    assert camera is not None
    calibration = camera.calibration
    assert calibration.distortion_model == ("none" if rectified else "brown_conrady")
    assert calibration.intrinsics[0].tolist() == ([40.0, 0.0, 30.0] if rectified else [50.0, 0.0, 31.5])


def test_rectified_pictures_without_their_intrinsics_are_left_out(tmp_path: Path) -> None:
    info = camera_info(1, "cam", "plumb_bob", [0.1] * 5)
    info.p[:] = 0
    messages = [
        ("/cam/camera_info", 1, info),
        ("/cam/image_rect", SECOND_NS, jpeg(SECOND_NS, "cam", np.zeros((32, 64, 3), np.uint8))),
        ("/points", SECOND_NS, cloud(SECOND_NS, "lidar", points_of([(1, 2, 3, 1)]))),
    ]
    steps, problems = read(write_bag(tmp_path / "bag", messages))
    assert steps[0].frame.cameras == {}
    assert "/cam/image_rect: left out, as the CameraInfo beside it has no P" in problems


def test_binned_pictures_take_their_own_intrinsics() -> None:
    binned = calibration_of(camera_info(0, "cam", binning_x=2, binning_y=2))
    assert (binned.width_px, binned.height_px) == (32, 16)
    assert binned.intrinsics[0, 0] == 25.0
    assert binned.rectified is not None
    assert binned.rectified[0, 0] == 20.0


def test_pictures_of_a_region_take_their_own_intrinsics() -> None:
    """In pixels before binning, as image_geometry has it."""
    info = camera_info(0, "cam", binning_x=2, binning_y=2)
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 16, 8, 32, 20
    region = calibration_of(info)
    assert (region.width_px, region.height_px) == (16, 10)
    assert region.intrinsics.tolist() == [[25.0, 0.0, 7.75], [0.0, 25.0, 3.75], [0.0, 0.0, 1.0]]
    assert region.rectified is not None
    assert region.rectified.tolist() == [[20.0, 0.0, 7.0], [0.0, 20.0, 3.5], [0.0, 0.0, 1.0]]


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


def odometry(time_ns: int, body: str, pose: NDArray[np.float64], speed_mps: float = 0.0) -> Any:
    x, y, z, w = quaternion_from_rotation(pose[:3, :3]).tolist()
    vector = T["geometry_msgs/msg/Vector3"]
    where = T["geometry_msgs/msg/Pose"](
        position=T["geometry_msgs/msg/Point"](*pose[:3, 3].tolist()),
        orientation=T["geometry_msgs/msg/Quaternion"](x=x, y=y, z=z, w=w),
    )
    twist = T["geometry_msgs/msg/Twist"](linear=vector(speed_mps, 0.0, 0.0), angular=vector(0.0, 0.0, 0.0))
    return T["nav_msgs/msg/Odometry"](
        header=message_header(time_ns, "odom"), child_frame_id=body,
        pose=T["geometry_msgs/msg/PoseWithCovariance"](pose=where, covariance=np.zeros(36)),
        twist=T["geometry_msgs/msg/TwistWithCovariance"](twist=twist, covariance=np.zeros(36)),
    )  # fmt: skip


def test_motion_comes_from_one_odometry_topic(tmp_path: Path) -> None:
    """The other one drives the same way in a frame of its own, far away and turned."""
    messages = []
    for k in range(10, 40):
        at = k * SECOND_NS // 10
        there = se2_as_se3(5000.0, 300.0, 1.0) @ se2_as_se3(float(k), 0.0, 0.0)
        messages.append(("/points", at, cloud(at, "base_link", points_of([(1, 2, 3, 1)]))))
        messages.append(("/odom", at, odometry(at, "base_link", se2_as_se3(float(k), 0.0, 0.0), 10.0)))
        if k % 2 == 0:
            messages.append(("/gps/odom", at + 1_000_000, odometry(at + 1_000_000, "base_link", there, 10.0)))
    steps, problems = read(write_bag(tmp_path / "bag", messages))
    assert steps[15].action is not None
    assert steps[15].action.steer == 0.0
    poses = [ego.world_from_ego for step in steps if (ego := step.frame.ego) is not None]
    assert [pose[0, 3] for pose in poses if pose is not None] == list(range(10, 40))
    assert "/gps/odom: left out, as motion is taken from /odom" in problems


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("speed_mps", [0.0, 10.0])
def test_motion_comes_from_the_transform_that_moves(tmp_path: Path, repeated: bool, speed_mps: float) -> None:
    """Not from a mounting between it and the base frame, even if a node of ROS 1 says that one again and again."""
    mounting = ("base_footprint", "base_link", se2_as_se3(0.5, 0.0, 0.0))
    messages = [("/tf_static", 1, tf(1, mounting))]
    for k in range(10, 40):
        at = k * SECOND_NS // 10
        moving = ("odom", "base_footprint", se2_as_se3(0.1 * k * speed_mps, 0.0, 0.0))
        messages.append(("/tf", at, tf(at, moving, *([mounting] if repeated else []))))
        messages.append(("/points", at, cloud(at, "base_link", points_of([(1, 2, 3, 1)]))))
    steps, problems = read(write_bag(tmp_path / "bag", messages))
    ego = steps[15].frame.ego
    assert ego is not None
    assert ego.world_from_ego is not None
    assert ego.speed_mps == pytest.approx(speed_mps)
    assert ego.world_from_ego[0, 3] == pytest.approx(2.5 * speed_mps + 0.5)
    assert "motion is taken from /tf (odom to base_footprint)" in problems


def test_a_gap_in_the_odometry_has_no_route(tmp_path: Path) -> None:
    """Nobody knows where the car is meanwhile, so nothing can be said of the way ahead of it; nor after the last sample."""
    messages = []
    for k in range(10, 60):
        at = k * SECOND_NS // 10
        messages.append(("/points", at, cloud(at, "base_link", points_of([(1, 2, 3, 1)]))))
        if not (20 < k < 40) and k < 50:
            messages.append(("/odom", at, odometry(at, "base_link", se2_as_se3(float(k), 0.0, 0.0), 10.0)))
    steps, _ = read(write_bag(tmp_path / "bag", messages))
    known = [k for k, step in zip(range(10, 60), steps, strict=True) if step.frame.ego is not None]
    assert known == [*range(10, 23), *range(40, 52)]
    assert [k for k, step in zip(range(10, 60), steps, strict=True) if step.frame.route_in_ego is not None] == known
    assert all(steps[k - 10].action is None for k in range(23, 40))


@pytest.mark.parametrize("damaged", ["speed", "place"])
def test_odometry_out_of_this_world_is_skipped(tmp_path: Path, damaged: str) -> None:
    """Numbers whose squares no float holds."""
    messages = []
    for k in range(10, 20):
        at = k * SECOND_NS // 10
        far, fast = (
            (1e300 if damaged == "place" and k == 15 else float(k)),
            1e200 if damaged == "speed" and k == 15 else 10.0,
        )
        messages.append(("/odom", at, odometry(at, "base_link", se2_as_se3(far, 0.0, 0.0), fast)))
        messages.append(("/points", at, cloud(at, "base_link", points_of([(1, 2, 3, 1)]))))
    steps, problems = read(write_bag(tmp_path / "bag", messages))
    assert [step.frame.ego.speed_mps for step in steps if step.frame.ego] == [10.0] * 10
    said = "no car moves or turns at 1e+200" if damaged == "speed" else "pose is not finite, or over 1e+09 m away"
    assert f"/odom: {said} (1 times)" in problems


def drive(steer: float, throttle: float, seconds: float = 3.0) -> Odometry:
    """Odometry of the simulator's own car under a constant action, from 5 m/s."""
    x, y, yaw, speed, drive_mps2, wheel = 0.0, 0.0, 0.0, 5.0, 0.0, steer * SEDAN.max_steer
    times, poses, speeds, rates = [], [], [], []
    for k in range(int(seconds * 50) + 1):
        if k % 5 == 0:
            times.append(k * 20_000)
            poses.append(se2_as_se3(x, y, yaw))
            speeds.append(speed)
            rates.append(speed * np.tan(wheel) / SEDAN.wheelbase)
        x, y, yaw, speed, drive_mps2, wheel, _, _ = advance_ego(
            SEDAN, x, y, yaw, speed, drive_mps2, wheel, 0.0, 0.0, steer, throttle, 0.02
        )
    made = odometry_from_samples(times, poses, speeds, rates)
    assert made is not None
    return made


@pytest.mark.parametrize(("steer", "throttle"), [(0.0, 0.5), (0.1, 0.3), (-0.2, 0.2), (0.05, -0.05)])
def test_estimated_action_inverts_the_simulators_car(steer: float, throttle: float) -> None:
    odometry = drive(steer, throttle)
    action = odometry.estimated_action(1_500_000)  # the actuators have settled
    assert action is not None
    assert action.steer == pytest.approx(steer, abs=0.01)
    assert action.throttle == pytest.approx(throttle, abs=0.03)
    assert odometry.estimated_action(3_000_000) is None
    assert odometry.estimated_action(-200_000) is None


@pytest.mark.parametrize("steer", [0.0, 0.15, -0.3])
def test_path_ahead_is_where_the_car_drove(steer: float) -> None:
    """Points lie on the circle of its steering, 2.5 m apart along it; the last is repeated."""
    odometry = drive(steer, 0.3)
    route = odometry.path_ahead(200_000)
    assert route is not None
    index = odometry.newest(200_000)
    positions = transform(inverse(odometry.world_from_ego[index]), odometry.world_from_ego[:, :3, 3])[:, :2]
    length = float(np.linalg.norm(np.diff(positions[index:], axis=0), axis=1).sum())
    inside = route[: int(length / ROUTE_SPACING_M)]
    assert len(inside) > 4
    steps = np.linalg.norm(np.diff(np.vstack([[0, 0], inside]), axis=0), axis=1)
    np.testing.assert_allclose(steps, ROUTE_SPACING_M, atol=0.05)
    curvature = np.tan(steer * SEDAN.max_steer) / SEDAN.wheelbase
    if steer:
        center = np.array([0.0, 1 / curvature])
        np.testing.assert_allclose(np.linalg.norm(inside - center, axis=1), 1 / abs(curvature), atol=0.1)
    else:
        np.testing.assert_allclose(inside[:, 1], 0, atol=1e-6)
    np.testing.assert_allclose(route[-1], positions[-1], atol=0.3)


def test_speed_comes_from_poses_where_the_recording_has_none() -> None:
    truth = drive(0.1, 0.3)
    missing = [None] * len(truth.timestamp_us)
    made = odometry_from_samples(truth.timestamp_us.tolist(), list(truth.world_from_ego), missing, missing)
    assert made is not None
    np.testing.assert_allclose(made.speed_mps[:-1], truth.speed_mps[:-1], atol=0.2)
    np.testing.assert_allclose(made.yaw_rate_radps[:-1], truth.yaw_rate_radps[:-1], atol=0.02)


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([".png", ".jpg"]))
@settings(max_examples=20, deadline=None)
def test_picture_size_is_known_before_decoding(width: int, height: int, suffix: str) -> None:
    picture = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    data = cv2.imencode(suffix, picture)[1].tobytes()
    assert picture_size(data) == (width, height)
    decoded = decode_picture(data, width, height)
    assert decoded.shape == (height, width, 3)
    if suffix == ".png":
        assert np.array_equal(decoded[..., ::-1], picture)


@given(st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a"]), st.binary(max_size=60))
def test_damaged_pictures_raise_one_error(magic: bytes, junk: bytes) -> None:
    with pytest.raises(PictureError):
        decode_picture(magic + junk, 8, 8)


def test_huge_picture_is_refused_by_its_head() -> None:
    data = bytearray(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(PictureError, match="larger than"):
        decode_picture(bytes(data), 60_000, 60_000)


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
