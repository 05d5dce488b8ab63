"""The files of a ROS 2 bag's folder, unpacked within limits where they were compressed. Knows nothing about what is in them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

import zstandard

from sim.logs.log import LogError, LogSummary
from sim.logs.unpack import MAX_WINDOW_BYTES

STORAGE = re.compile(r".+\.(db3|mcap)(\.zstd?)?")
NAMED = re.compile(r"^\s*(?:-|path:)\s*[\"']?(.+\.(?:db3|mcap)(?:\.zstd?)?)[\"']?\s*$", re.MULTILINE)
BLOCK_BYTES = 1 << 20


class BagFolder:
    """An open folder with `metadata.yaml`.

    files: its MCAP files, or where it has none its SQLite databases, by name. packed_messages: each message in them is
        compressed by itself.

    Raises:
        LogError: there is no such file, or one that cannot be unpacked.
    """

    def __init__(self, path: Path, summary: LogSummary) -> None:
        try:
            description = (path / "metadata.yaml").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LogError(f"{path / 'metadata.yaml'} cannot be read ({error})") from None
        mode = re.search(r"^\s*compression_mode:\s*[\"']?(\w*)", description, re.MULTILINE)
        self.packed_messages = mode is not None and mode[1].lower() == "message"
        kinds = {file: match[1] for file in sorted(path.iterdir()) if (match := STORAGE.fullmatch(file.name))}
        kind = "mcap" if "mcap" in kinds.values() else "db3"
        here = [
            file for file in kinds if kinds[file] == kind and not (_is_packed(file) and file.with_suffix("") in kinds)
        ]
        for name in sorted({PurePath(name).name for name in NAMED.findall(description)}):
            if path / name not in kinds and (path / name).with_suffix("") not in kinds:
                summary.warn(f"{path}: left out is {name}, which its metadata.yaml names and which is not there")
        if not here:
            raise LogError(f"{path} holds no .mcap and no .db3 file, so it is no ROS 2 bag")
        self._unpacked: TemporaryDirectory[str] | None = None
        try:
            self.files = tuple(self._plain(file) for file in here)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove what was unpacked."""
        if self._unpacked is not None:
            self._unpacked.cleanup()

    def _plain(self, file: Path) -> Path:
        """The file, or a copy of what it holds if it is compressed: of no more than half of the disk space left for it."""
        if not _is_packed(file):
            return file
        if self._unpacked is None:
            self._unpacked = TemporaryDirectory(prefix="automedon-")
        target = Path(self._unpacked.name) / file.stem
        room = shutil.disk_usage(self._unpacked.name).free // 2
        try:
            with file.open("rb") as packed, target.open("wb") as plain:
                decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
                stream = decompressor.stream_reader(packed, read_across_frames=True)
                while block := stream.read(BLOCK_BYTES):
                    room -= len(block)
                    if room < 0:
                        raise LogError(f"{file} unpacks to more than half of what is free in {target.parent.parent}")
                    plain.write(block)
        except (OSError, zstandard.ZstdError) as error:
            raise LogError(f"{file} cannot be unpacked ({error})") from None
        return target


def _is_packed(file: Path) -> bool:
    return file.suffix in (".zstd", ".zst")
