"""Opens logs of any kind that we read, told apart by content: ours, other MCAP files, ROS 1 and ROS 2 bags, data sets.

Knows which reader reads what; knows nothing about how they do it.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sim.logs.argoverse2_sensors import Argoverse2Sensors, is_argoverse2_sensors
from sim.logs.bag_folder import BagFolder
from sim.logs.kitti_raw import KittiRaw, is_kitti_raw
from sim.logs.log import Log, LogError, LogSummary
from sim.logs.mcap_file import MCAP_MAGIC, McapFile
from sim.logs.mcap_source import McapSource
from sim.logs.own_log import METADATA_NAME, open_own_log
from sim.logs.recorded import MessageSource
from sim.logs.recording import ReadOptions, open_recording
from sim.logs.ros import ROS1_MAGIC, SQLITE_MAGIC, RosBag

ALLOWED = (
    "our .mcap logs, MCAP files with ROS or Foxglove messages, ROS 1 bags, ROS 2 bags (folder, .db3 or .mcap), and the folders of "
    "KITTI's raw drives and of Argoverse 2's sensor logs"
)


def open_log(path: Path | str, options: ReadOptions | None = None) -> Log:
    """Open a log, whatever kind it is of; its name does not matter, its content does.

    options: for recordings that are not ours.

    Raises:
        LogError: there is no such file, it is empty, of no kind that we read, or damaged beyond use.
    """
    path = Path(path)
    options = options or ReadOptions()
    summary = LogSummary()
    if path.is_dir():
        return _open_folder(path, summary, options)
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except FileNotFoundError:
        raise LogError(f"no log at {path}: give {ALLOWED}") from None
    except OSError as error:
        raise LogError(f"{path} cannot be opened: {error.strerror}") from None
    if not head:
        raise LogError(f"{path} is empty (0 bytes)")
    if head.startswith(MCAP_MAGIC):
        return _open_mcap(path, summary, options)
    if head.startswith(ROS1_MAGIC):
        return _open_bag(path, RosBag(path, summary), summary, options)
    if head.startswith(SQLITE_MAGIC):
        return _open_bag(path, RosBag(path, summary, [path]), summary, options)
    raise LogError(f"{path} is no log that we read (it starts with {head[:8].hex(' ')}): give {ALLOWED}")


def _open_folder(path: Path, summary: LogSummary, options: ReadOptions) -> Log:
    if is_kitti_raw(path):
        return open_recording(path, KittiRaw(path, summary), summary, options)
    if is_argoverse2_sensors(path):
        return open_recording(path, Argoverse2Sensors(path, summary), summary, options)
    if not (path / "metadata.yaml").is_file():
        inside = next((p for p in sorted(path.iterdir())[:1000] if p.is_dir() and _is_recording(p)), None)
        raise LogError(
            f"folder {path} is no ROS 2 bag (no metadata.yaml), no drive of KITTI (no image_02/data, no velodyne_points/data) and "
            f"no log of Argoverse 2 (no sensors/lidar): give {'the file' if inside is None else inside} inside it, or {ALLOWED}"
        )
    opened = ExitStack()
    try:
        folder = BagFolder(path, summary)
        opened.callback(folder.close)
        source: MessageSource
        if folder.files[0].suffix == ".mcap":  # our own reader also reads files that were cut off
            files = []
            for file in folder.files:
                files.append(McapFile(file, summary))
                opened.callback(files[-1].close)
            source = McapSource(*files, packed_messages=folder.packed_messages)
        else:
            source = RosBag(path, summary, folder.files, folder.packed_messages)
            opened.callback(source.close)
        return open_recording(path, source, summary, options, opened.close)
    except BaseException:
        opened.close()
        raise


def _is_recording(folder: Path) -> bool:
    return (folder / "metadata.yaml").is_file() or is_kitti_raw(folder) or is_argoverse2_sensors(folder)


def _open_bag(path: Path, bag: RosBag, summary: LogSummary, options: ReadOptions) -> Log:
    try:
        return open_recording(path, bag, summary, options)
    except BaseException:
        bag.close()
        raise


def _open_mcap(path: Path, summary: LogSummary, options: ReadOptions) -> Log:
    file = McapFile(path, summary)
    try:
        if METADATA_NAME in file.metadata:
            return open_own_log(path, file, summary)
        return open_recording(path, McapSource(file), summary, options)
    except BaseException:
        file.close()
        raise


def log_info(path: Path | str) -> dict[str, Any]:
    """What a log holds, as plain values: kind, duration, topics with type and count, header, problems.

    The messages themselves are not decoded.

    Raises:
        LogError: as `open_log`.
    """
    with open_log(path) as log:
        report: dict[str, Any] = {
            "path": str(log.path),
            "kind": log.kind,
            "duration_s": log.duration_s,
            "start_us": log.start_us,
            "messages": sum(info.messages for info in log.topics.values()),
            "topics": {name: {"type": info.type, "messages": info.messages} for name, info in log.topics.items()},
        }
        if log.header is not None:
            report["header"] = log.header.as_metadata()
            report["road_network_bytes"] = len(log.road_network or b"")
        report["problems"] = log.summary.lines()
        return report
