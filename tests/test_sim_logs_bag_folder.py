"""ROS 2 bags in several files, compressed as rosbag2 does it: by file, by message, and within an MCAP file."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard
from rosbags.rosbag2 import Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode, StoragePlugin
from test_sim_logs_ros import SECOND_NS, STORE, cloud, points_of, read

from sim.logs.log import LogError


def bag(path: Path, storage: StoragePlugin, mode: CompressionMode, first: int = 1) -> Path:
    """Three sweeps, a second apart; the x of their only point counts on from `first`."""
    writer = Writer(path, version=9, storage_plugin=storage)
    if mode != CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/points", "sensor_msgs/msg/PointCloud2", typestore=STORE)
        for k in range(first, first + 3):
            message = cloud(k * SECOND_NS, "lidar", points_of([(k, 2, 3, 1)]))
            writer.write(connection, k * SECOND_NS, STORE.serialize_cdr(message, message.__msgtype__))
    return path


def places(path: Path) -> tuple[list[float], str]:
    """The x of each sweep, and what is said of them."""
    steps, problems = read(path)
    return [float(sweep.points[0, 0]) for step in steps if (sweep := step.frame.lidars["lidar"])], problems


@pytest.mark.parametrize(
    ("storage", "mode"),
    [(storage, mode) for storage in StoragePlugin for mode in CompressionMode if mode != CompressionMode.STORAGE]
    + [(StoragePlugin.MCAP, CompressionMode.STORAGE)],
)
def test_every_compression_gives_the_same_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: StoragePlugin, mode: CompressionMode
) -> None:
    """And nothing that was unpacked stays."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    assert places(bag(tmp_path / "bag", storage, mode))[0] == [1, 2, 3]
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_files_of_one_bag_follow_each_other_in_time(tmp_path: Path, storage: StoragePlugin) -> None:
    """The later one comes first by its name; a third that the description names is missing."""
    path = bag(tmp_path / "z", storage, CompressionMode.NONE)
    (late,) = set(bag(tmp_path / "a", storage, CompressionMode.NONE, first=4).iterdir()) - {
        tmp_path / "a" / "metadata.yaml"
    }
    shutil.copy(late, path)
    description = (path / "metadata.yaml").read_text()
    (path / "metadata.yaml").write_text(description + "  - part of z_2.db3\n")
    found, problems = places(path)
    assert found == [1, 2, 3, 4, 5, 6]
    assert "left out is part of z_2.db3" in problems


@pytest.mark.parametrize("name", ["drive #3", "50%20", "why?"])
def test_a_database_is_found_whatever_its_path(tmp_path: Path, name: str) -> None:
    path = bag(tmp_path / "bag", StoragePlugin.SQLITE3, CompressionMode.NONE).rename(tmp_path / name)
    assert places(path)[0] == [1, 2, 3]


@pytest.mark.parametrize("column", ["data = 'text'", "data = 1099511627776", "timestamp = 'noon'"])
def test_rows_of_a_database_that_are_no_messages_are_counted(tmp_path: Path, column: str) -> None:
    """SQLite's columns hold values of any type, whatever they were made for."""
    path = bag(tmp_path / "bag", StoragePlugin.SQLITE3, CompressionMode.NONE)
    with closing(sqlite3.connect(path / "bag.db3")) as database, database:
        database.execute(f"UPDATE messages SET {column} WHERE id = 2")
    sweeps, problems = places(path)
    assert sweeps == [1, 3]
    assert "/points: row whose time is no integer or whose data are no bytes (1 times)" in problems


@pytest.mark.parametrize("damage", ["cut off", "within"])
def test_a_damaged_database_of_several_leaves_the_others(tmp_path: Path, damage: str) -> None:
    path = bag(tmp_path / "a", StoragePlugin.SQLITE3, CompressionMode.NONE)
    bag(tmp_path / "b", StoragePlugin.SQLITE3, CompressionMode.NONE, first=4).joinpath("b.db3").rename(path / "b.db3")
    if damage == "cut off":
        (path / "a.db3").write_bytes(b"")
    else:
        with closing(sqlite3.connect(path / "a.db3")) as database, database:
            database.execute("UPDATE messages SET data = CAST(x'ff' AS TEXT) WHERE id = 2")
    sweeps, problems = places(path)
    assert sweeps == ([4, 5, 6] if damage == "cut off" else [1, 4, 5, 6])
    assert f"{path / 'a.db3'}{': left out' if damage == 'cut off' else ' is damaged'}" in problems


def test_what_a_killed_recorder_left_in_the_journal_is_said_to_be_missing(tmp_path: Path) -> None:
    """rosbag2 writes databases with a write-ahead log when it is to be resilient."""
    path = bag(tmp_path / "a", StoragePlugin.SQLITE3, CompressionMode.NONE)
    with closing(sqlite3.connect(path / "a.db3")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("INSERT INTO messages SELECT 4, topic_id, timestamp, data FROM messages WHERE id = 3")
        database.commit()
        shutil.copytree(path, tmp_path / "killed")
    sweeps, problems = places(tmp_path / "killed")
    assert sweeps == [1, 2, 3]
    assert "stands in a.db3-wal beside it, which is not read" in problems
    assert "a.db3-wal" not in places(path)[1]


def test_a_file_that_was_unpacked_beside_the_packed_one_counts_once(tmp_path: Path) -> None:
    path = bag(tmp_path / "bag", StoragePlugin.SQLITE3, CompressionMode.FILE)
    (packed,) = path.glob("*.zstd")
    packed.with_suffix("").write_bytes(zstandard.ZstdDecompressor().stream_reader(packed.read_bytes()).read())
    assert places(path)[0] == [1, 2, 3]


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_messages_unpack_within_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: StoragePlugin
) -> None:
    path = bag(tmp_path / "bag", storage, CompressionMode.MESSAGE)
    monkeypatch.setattr("sim.logs.unpack.MAX_UNPACKED_BYTES", 100)
    found, problems = places(path)
    assert found == []
    assert "more than the 100 allowed" in problems


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_files_unpack_to_what_fits_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: StoragePlugin
) -> None:
    path = bag(tmp_path / "bag", storage, CompressionMode.FILE)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(LogError, match="more than half of what is free"):
        read(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bag"]


def test_what_is_no_bag_is_one_line(tmp_path: Path) -> None:
    path = bag(tmp_path / "bag", StoragePlugin.SQLITE3, CompressionMode.FILE)
    (packed,) = path.glob("*.zstd")
    packed.write_bytes(b"no zstd")
    with pytest.raises(LogError, match="cannot be unpacked"):
        read(path)
    packed.unlink()
    with pytest.raises(LogError, match=r"no \.mcap and no \.db3"):
        read(path)
