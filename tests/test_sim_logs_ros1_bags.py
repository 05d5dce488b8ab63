"""ROS 1 bags: damaged chunks, what chunks unpack to, and files that are closed again."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags import rosbag1
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore
from test_sim_logs_ros import SECOND_NS, STORE, camera_info, cloud, jpeg, points_of, read

from sim.logs.log import LogError
from sim.logs.reader import open_log
from sim.logs.recording import ReadOptions


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
