"""Every kind of log, whole or damaged, gives steps or one clear line; never a traceback."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType, Writer
from rich.console import Console
from rosbags.typesys import Stores, get_typestore
from synthetic_steps import header, synthetic_steps

from sim.logs.log import LogError, LogSummary
from sim.logs.mcap_file import MCAP_MAGIC, McapFile
from sim.logs.mcap_source import McapSource
from sim.logs.reader import log_info, open_log
from sim.logs.recording import ReadOptions, open_recording
from sim.logs.ros import ROS1_MAGIC, SQLITE_MAGIC
from sim.logs.unpack import MAX_UNPACKED_BYTES
from sim.logs.writer import LogWriter
from sim.replay import compare_steps
from sim.replay_command import replay_logs
from sim.step import Step

SAMPLE = Path(__file__).parent / "data" / "log-v1.mcap"
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(path: Path, options: ReadOptions | None = None) -> tuple[list[Step], list[str]]:
    with open_log(path, options) as log:
        return list(log.steps()), log.summary.lines()


def read_or_error(path: Path) -> str:
    """Problems in one text; anything but LogError gets through, and fails the test."""
    try:
        steps, problems = read(path)
        message = f"{len(steps)} steps; " + "; ".join(problems)
    except LogError as error:
        message = str(error)
    assert "\n" not in message
    return message


def test_info_names_topics_counts_header_and_problems(tmp_path: Path) -> None:
    report = log_info(SAMPLE)
    assert report["kind"] == "Automedon log"
    assert report["duration_s"] == pytest.approx(0.2)
    assert report["topics"]["/frame"] == {"type": "automedon.frame", "messages": 3}
    assert report["topics"]["/camera/side/image"]["messages"] == 2
    assert report["header"]["policy"] == "expert"
    assert report["problems"] == []
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(SAMPLE.read_bytes()[:-100])
    assert any("cut off" in line for line in log_info(cut)["problems"])


@FUZZ
@given(st.integers(0, SAMPLE.stat().st_size - 1))
def test_own_log_cut_anywhere_gives_a_prefix(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.mcap"
    path.write_bytes(SAMPLE.read_bytes()[:length])
    message = read_or_error(path)
    if not message[0].isdigit():
        assert length < 1000  # the header is not there
        return
    assert "cut off" in message
    steps, _ = read(path)
    whole, _ = read(SAMPLE)
    assert not steps or compare_steps(steps, whole[: len(steps)]).equal


@FUZZ
@given(st.lists(st.tuples(st.integers(8, SAMPLE.stat().st_size - 1), st.integers(1, 255)), min_size=1, max_size=8))
def test_own_log_with_flipped_bytes_gives_no_wrong_step(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    """Chunks carry checksums, so what does come back is what was written."""
    data = bytearray(SAMPLE.read_bytes())
    for at, flip in flips:
        data[at] ^= flip
    path = tmp_path / "flipped.mcap"
    path.write_bytes(bytes(data))
    if read_or_error(path)[0].isdigit():
        steps, _ = read(path)
        whole, _ = read(SAMPLE)
        assert all(compare_steps([step], [whole[step.tick]]).equal for step in steps)


@FUZZ
@given(st.sampled_from([b"", MCAP_MAGIC, ROS1_MAGIC + b"2.0\n", SQLITE_MAGIC]), st.binary(max_size=300))
@example(MCAP_MAGIC, b"\x06" + struct.pack("<Q", 2**63))
@example(b"", b"")
def test_junk_is_one_clear_line(tmp_path: Path, magic: bytes, junk: bytes) -> None:
    path = tmp_path / "junk"
    path.write_bytes(magic + junk)
    assert str(path) in read_or_error(path)


def test_missing_file_and_bare_folder_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"no log at .*absent"):
        open_log(tmp_path / "absent")
    with pytest.raises(LogError, match=r"metadata\.yaml"):
        open_log(tmp_path)


def test_corrupt_chunk_in_the_middle_costs_only_its_steps(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    steps = list(synthetic_steps(60, points=5000))
    writer = LogWriter(path, header())
    for step in steps:
        writer.on_step(step)
    writer.close()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    got, problems = read(path)
    assert 30 <= len(got) < 60
    assert all(compare_steps([steps[step.tick]], [step]).equal for step in got)
    assert any("damaged chunk" in line for line in problems)
    assert any("step left out" in line for line in problems)
    with open_log(path) as log:
        again = [list(log.steps()) for _ in range(2)][1]
        assert len(again) == len(got)
        (damaged,) = (line for line in log.summary.lines() if "damaged chunk" in line)
        assert damaged.endswith("(1 times)"), "one chunk, read twice"


def log_with(path: Path, messages: dict[str, bytes], **metadata: str) -> Path:
    """A log of ours that holds a message for each of some topics, and says of itself what is given."""
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        writer.add_metadata("automedon", {**header().as_metadata(), **metadata})
        schema = writer.register_schema("s", "jsonschema", b"{}")
        for topic, message in messages.items():
            writer.add_message(writer.register_channel(topic, "json", schema), 0, message, 0)
        writer.finish()
    return path


@pytest.mark.parametrize("field", ["progress_m", "route_length_m"])
@pytest.mark.parametrize("value", ["far", {}])
def test_a_step_whose_progress_is_no_number_is_left_out(tmp_path: Path, field: str, value: Any) -> None:
    frame = {"tick": 0, "timestamp_us": 0, "frame_timestamp_us": 0, "rig": 0, "cameras": {}, "lidars": {}}
    frame |= {"topics": ["/reward"], "progress_m": 1.5, "route_length_m": None}
    reward = b'{"reward": 0.0, "terms": {}}'
    (step,), _ = read(log_with(tmp_path / "a.mcap", {"/reward": reward, "/frame": json.dumps(frame).encode()}))
    assert (step.progress_m, step.route_length_m) == (1.5, None)
    frame[field] = value
    steps, problems = read(log_with(tmp_path / "a.mcap", {"/reward": reward, "/frame": json.dumps(frame).encode()}))
    assert steps == []
    assert "step left out" in problems[0]


@pytest.mark.parametrize(
    "message",
    [
        b'{"revision": 1e999, "cameras": {}, "lidars": {}}',
        b'{"revision": 1, "cameras": {"a": {"width_px": 1e999}}, "lidars": {}}',
        b'{"revision": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["infinite revision", "infinite width", "deep"],
)
def test_rig_that_no_parser_likes_is_skipped(tmp_path: Path, message: bytes) -> None:
    assert "0 steps; /rig: does not decode" in read_or_error(log_with(tmp_path / "a.mcap", {"/rig": message}))


def test_damaged_road_network_is_not_taken_for_the_map(tmp_path: Path) -> None:
    """Its checksum tells; the simulator would be blamed for the difference."""
    path = tmp_path / "a.mcap"
    writer = LogWriter(path, header(), net_xml=b"<net>one lane</net>")
    for step in synthetic_steps(2):
        writer.on_step(step)
    writer.close()
    path.write_bytes(path.read_bytes().replace(b"<net>one lane</net>", b"<net>two lane</net>"))
    with open_log(path) as log:
        assert log.road_network is None
        assert len(list(log.steps())) == 2
        assert "damaged record (checksum does not match) (1 times)" in log.summary.lines()[0]
    with pytest.raises(LogError, match=r"its map is missing or damaged.*checksum does not match"):
        replay_logs([path], None, True, None, Console())


@pytest.mark.parametrize("metadata", [{"seed": "-1"}, {"seed": str(2**64)}, {"episode": "-1"}, {"episode": str(2**63)}])
def test_seed_and_episode_of_no_run_are_refused(tmp_path: Path, metadata: dict[str, str]) -> None:
    said = read_or_error(log_with(tmp_path / "a.mcap", {"/frame": b"{}"}, **metadata))
    assert "'automedon' is damaged" in said
    assert "64 bits" in said


def mcap_with_chunk(compression: str, announced: int, packed: bytes) -> bytes:
    body = struct.pack("<QQQII", 0, 0, announced, 0, len(compression)) + compression.encode()
    body += struct.pack("<Q", len(packed)) + packed
    return MCAP_MAGIC + struct.pack("<BQ", 6, len(body)) + body


@pytest.mark.parametrize("announced", [100, 2**62])
def test_decompression_bomb_takes_no_memory(tmp_path: Path, announced: int) -> None:
    """Half a gigabyte of zeros in a few kilobytes, announced as less and as more."""
    compressor = zstandard.ZstdCompressor(level=3).compressobj()
    block = bytes(1 << 20)
    packed = b"".join(compressor.compress(block) for _ in range(512)) + compressor.flush()
    path = tmp_path / "bomb.mcap"
    path.write_bytes(mcap_with_chunk("zstd", announced, packed))
    summary = LogSummary()
    file = McapFile(path, summary)
    assert list(file.messages()) == []
    file.close()
    assert any("announces" in line for line in summary.lines())


@pytest.mark.parametrize(("opcode", "said"), [(6, "damaged chunk"), (4, "damaged record"), (5, "damaged chunk")])
def test_a_huge_record_takes_no_memory(tmp_path: Path, opcode: int, said: str) -> None:
    """A chunk, a channel and a message of over a gigabyte, in a file that has these bytes but takes no room on the disk."""
    length = MAX_UNPACKED_BYTES + (2 << 20)
    path = tmp_path / "huge.mcap"
    with path.open("wb") as stream:
        stream.write(MCAP_MAGIC + struct.pack("<BQ", opcode, length))
        stream.truncate(len(MCAP_MAGIC) + 9 + length)
    summary = LogSummary()
    tracemalloc.start()
    file = McapFile(path, summary)
    assert list(file.messages()) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    file.close()
    assert peak < 1 << 24
    assert any(said in line and f"a record of {length} bytes is larger" in line for line in summary.lines())


def test_chunks_of_one_time_fill_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be given out before all of them are read; those beyond the limit are counted."""
    monkeypatch.setattr("sim.logs.mcap_file.MAX_HELD_BYTES", 10_000)
    path = tmp_path / "a.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream, chunk_size=1)
        writer.start()
        channel = writer.register_channel("/t", "json", writer.register_schema("s", "jsonschema", b"{}"))
        for time_ns in [5] * 30 + [6]:
            writer.add_message(channel, time_ns, bytes(1000), time_ns)
        writer.finish()
    summary = LogSummary()
    file = McapFile(path, summary)
    times = [message.time_ns for message in file.messages()]
    file.close()
    assert 5 <= times.count(5) <= 10
    assert times[-1] == 6
    (count,) = summary.skipped.values()
    assert len(times) + count == 31
    assert "chunk left out" in summary.lines()[0]


def test_chunk_of_too_many_messages_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.logs.mcap_file.MAX_CHUNK_MESSAGES", 10)
    path = tmp_path / "a.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        channel = writer.register_channel("/t", "json", writer.register_schema("s", "jsonschema", b"{}"))
        for time_ns in range(11):
            writer.add_message(channel, time_ns, b"{}", time_ns)
        writer.finish()
    summary = LogSummary()
    file = McapFile(path, summary)
    assert list(file.messages()) == []
    file.close()
    assert "more than 10 messages" in summary.lines()[0]


def test_a_chunk_without_messages_says_nothing_about_time(tmp_path: Path) -> None:
    """Its head says 0, as the format asks for; that of a message at 0 says so too."""

    def span_us(*times_ns: int) -> tuple[int, int]:
        path = tmp_path / "a.mcap"
        with path.open("wb") as stream:
            writer = Writer(stream, chunk_size=1)
            writer.start()
            channel = writer.register_channel("/t", "json", writer.register_schema("s", "jsonschema", b"{}"))
            for time_ns in times_ns:
                writer.add_message(channel, time_ns, b"{}", time_ns)
            writer.finish()
        data = path.read_bytes()
        head_end = len(MCAP_MAGIC) + 9 + struct.unpack_from("<Q", data, len(MCAP_MAGIC) + 1)[0]
        empty = struct.pack("<QQQIIQ", 0, 0, 0, 0, 0, 0)  # times, size, checksum, compression "", no records
        path.write_bytes(data[:head_end] + struct.pack("<BQ", 6, len(empty)) + empty + data[head_end:])
        file = McapFile(path, LogSummary())
        assert [message.time_ns for message in file.messages()] == list(times_ns)
        file.close()
        return file.span_us

    assert span_us(10**18, 10**18 + 5000) == (10**15, 10**15 + 5)
    assert span_us(0, 5000) == (0, 5)


@pytest.mark.parametrize("compression", list(CompressionType))
def test_messages_come_in_order_of_time_whatever_the_order_in_the_file(
    tmp_path: Path, compression: CompressionType
) -> None:
    """Written by the mcap package's own writer, shuffled over small chunks."""
    times = np.random.default_rng(1).permutation(200).tolist()
    stream = io.BytesIO()
    writer = Writer(stream, chunk_size=64, compression=compression)
    writer.start()
    channel = writer.register_channel("/t", "json", writer.register_schema("s", "jsonschema", b"{}"))
    for time_ns in times:
        writer.add_message(channel, time_ns, str(time_ns).encode(), time_ns)
    writer.finish()
    path = tmp_path / "a.mcap"
    path.write_bytes(stream.getvalue())
    file = McapFile(path, LogSummary())
    assert [int(message.data) for message in file.messages()] == list(range(200))
    assert file.counts == {channel: 200}
    assert file.complete
    file.close()


def test_foxglove_messages_of_strangers_give_the_same_sensors(tmp_path: Path) -> None:
    """A log of ours read as if it were not: by Foxglove's schemas alone, it gives the same pictures and points."""
    path = tmp_path / "a.mcap"
    writer = LogWriter(path, header())
    steps = list(synthetic_steps(6))
    for step in steps:
        writer.on_step(step)
    writer.close()
    summary = LogSummary()
    source = McapSource(McapFile(path, summary))
    with open_recording(path, source, summary, ReadOptions(base_frame="ego", max_age_us=50_000)) as log:
        assert log.kind == "Foxglove MCAP"
        read_back = list(log.steps())
    assert [s.timestamp_us for s in read_back] == [k * 100_000 for k in range(6)]
    for ours, theirs in zip(steps, read_back, strict=True):
        front, top = ours.frame.cameras["front"], ours.frame.lidars["top"]
        seen, swept = theirs.frame.cameras["front"], theirs.frame.lidars["top"]
        assert front is not None
        assert seen is not None
        assert top is not None
        assert swept is not None
        assert np.array_equal(seen.image, front.image)
        assert seen.calibration.distortion.tolist() == front.calibration.distortion.tolist()
        np.testing.assert_allclose(seen.calibration.ego_from_camera, front.calibration.ego_from_camera, atol=1e-12)
        np.testing.assert_allclose(swept.ego_from_lidar, top.ego_from_lidar, atol=1e-12)
        assert np.array_equal(swept.points[:, :3], top.points[:, :3])
        assert (theirs.frame.cameras["side"] is None) == (ours.frame.cameras["side"] is None)
        assert theirs.frame.ego is not None
        assert ours.frame.ego is not None
        np.testing.assert_allclose(theirs.frame.ego.world_from_ego, ours.frame.ego.world_from_ego, atol=1e-9)
    assert any("motion is taken from /tf" in line for line in summary.lines())


def test_ros1_messages_in_mcap(tmp_path: Path) -> None:
    """Written by the mcap package, serialised by rosbags."""
    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    stamp = types["builtin_interfaces/msg/Time"](sec=7, nanosec=0)
    fields = [
        types["sensor_msgs/msg/PointField"](name=name, offset=4 * k, datatype=7, count=1)
        for k, name in enumerate(("x", "y", "z"))
    ]
    cloud = types["sensor_msgs/msg/PointCloud2"](
        header=types["std_msgs/msg/Header"](seq=0, stamp=stamp, frame_id="lidar"), height=1, width=2, fields=fields,
        is_bigendian=False, point_step=12, row_step=24, data=np.arange(6, dtype="<f4").view(np.uint8), is_dense=True,
    )  # fmt: skip
    path = tmp_path / "a.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start("ros1")
        schema = writer.register_schema("sensor_msgs/PointCloud2", "ros1msg", b"")
        channel = writer.register_channel("/points", "ros1", schema)
        writer.add_message(channel, 1, bytes(store.serialize_ros1(cloud, cloud.__msgtype__)), 1)
        writer.finish()
    steps, _ = read(path)
    sweep = steps[0].frame.lidars["lidar"]
    assert sweep is not None
    assert steps[0].timestamp_us == 7_000_000
    assert sweep.points[:, :3].ravel().tolist() == list(range(6))
