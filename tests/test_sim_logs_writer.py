"""Logs of ours: what is written reads back to the same bytes, in other people's programs too, and after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import foxglove
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_protobuf.decoder import DecoderFactory
from synthetic_steps import header, synthetic_steps

from planning.action import Action
from sim.logs.log import ImageFormat, LogError, LogHeader
from sim.logs.reader import open_log
from sim.logs.writer import LogWriter
from sim.replay import compare_steps
from sim.step import Step

ROOT = Path(__file__).resolve().parent.parent
RERUN = Path(sys.executable).with_name("rerun")


def write(path: Path, steps: list[Step], image_format: ImageFormat = "png") -> Path:
    lines = [np.array([[0.0, 0.0], [10.0, 0.0], [20.0, 5.0]])]
    writer = LogWriter(path, header(image_format), net_xml=b"<net/>", map_lines=lines)
    for step in steps:
        writer.on_step(step)
    writer.close()
    return path


def test_steps_read_back_to_the_same_bytes(tmp_path: Path) -> None:
    steps = list(synthetic_steps(7))
    with open_log(write(tmp_path / "a.mcap", steps)) as log:
        result = compare_steps(steps, log.steps())
        assert (result.equal, result.steps) == (True, 7), str(result.first_difference)
        assert list(log.steps())[3].frame.cameras["side"] is None
        assert log.header == header()
        assert log.road_network == b"<net/>"
        assert log.summary.lines() == []
        assert log.duration_s == pytest.approx(0.6)


def test_empty_sweeps_and_extreme_numbers_read_back(tmp_path: Path) -> None:
    extremes = np.array([[np.nan, np.inf, -np.inf, -0.0], [1e-45, 3.4e38, 0.1, 1.0]], np.float32)
    step = next(synthetic_steps(2))
    sweep = step.frame.lidars["top"]
    assert sweep is not None
    steps = []
    for tick, points in enumerate((extremes, np.zeros((0, 4), np.float32))):
        lidars = {"top": replace(sweep, points=points, time_offset_us=None)}
        action = Action(float(np.nextafter(0.1, 1)), -1e-300)
        frame = replace(step.frame, lidars=lidars)
        steps.append(replace(step, tick=tick, timestamp_us=tick * 100_000, frame=frame, action=action))
    with open_log(write(tmp_path / "a.mcap", steps)) as log:
        result = compare_steps(steps, log.steps())
        assert (result.equal, result.steps) == (True, 2), str(result.first_difference)


def test_jpeg_log_is_smaller_and_proves_the_bytes(tmp_path: Path) -> None:
    steps = list(synthetic_steps(4, points=1))
    png, jpeg = write(tmp_path / "png.mcap", steps), write(tmp_path / "jpeg.mcap", steps, "jpeg")
    assert jpeg.stat().st_size < 0.8 * png.stat().st_size
    with open_log(jpeg) as log:
        assert compare_steps(log.steps(), steps, log.image_sha256).equal
        front = steps[2].frame.cameras["front"]
        assert front is not None
        picture = front.image.copy()
        picture[5, 6, 1] ^= 1
        cameras = {**steps[2].frame.cameras, "front": replace(front, image=picture)}
        changed = [*steps[:2], replace(steps[2], frame=replace(steps[2].frame, cameras=cameras)), steps[3]]
        difference = compare_steps(log.steps(), changed, log.image_sha256).first_difference
        assert difference is not None
        assert (difference.tick, difference.topic) == (2, "/camera/front/image")


def test_foreign_reader_understands_every_message(tmp_path: Path) -> None:
    """The reader of the mcap package, which knows nothing of us, finds Foxglove's schemas and their contents."""
    steps = list(synthetic_steps(3))
    path = write(tmp_path / "a.mcap", steps)
    found: dict[str, list[tuple[str, object]]] = {}
    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        for schema, channel, message in reader.iter_messages():
            assert schema is not None
            decoder = DecoderFactory().decoder_for(channel.message_encoding, schema)
            body = json.loads(message.data) if decoder is None else decoder(message.data)
            found.setdefault(channel.topic, []).append((schema.name, body))
        assert [m.name for m in reader.iter_metadata()] == ["automedon"]
        assert [(a.name, a.data) for a in reader.iter_attachments()] == [("road_network.net.xml", b"<net/>")]
    schemas = {topic: messages[0][0] for topic, messages in found.items()}
    assert schemas["/camera/front/image"] == "foxglove.CompressedImage"
    assert schemas["/camera/front/calibration"] == "foxglove.CameraCalibration"
    assert schemas["/lidar/top/points"] == "foxglove.PointCloud"
    assert schemas["/tf"] == "foxglove.FrameTransforms"
    assert schemas["/actors"] == schemas["/map"] == "foxglove.SceneUpdate"
    clouds = [body for _, body in found["/lidar/top/points"]]
    offsets = {field.name: field.offset for field in clouds[1].fields}  # type: ignore[attr-defined]
    assert offsets == {"x": 0, "y": 4, "z": 8, "intensity": 12}
    sweep = steps[1].frame.lidars["top"]
    assert sweep is not None
    assert np.array_equal(np.frombuffer(clouds[1].data, np.float32).reshape(-1, 4), sweep.points)  # type: ignore[attr-defined]
    (line,) = found["/map"][0][1].entities[0].lines  # type: ignore[attr-defined]
    assert [(p.x, p.y) for p in line.points] == [(0, 0), (10, 0), (20, 5)]
    assert found["/ego/state"][2][1]["speed_mps"] == steps[2].frame.ego.speed_mps  # type: ignore[index, union-attr]


def test_rerun_accepts_and_converts(tmp_path: Path) -> None:
    if not RERUN.exists():
        pytest.skip("no rerun command beside this Python")
    path = write(tmp_path / "a.mcap", list(synthetic_steps(5)))
    environment = {**os.environ, "HOME": str(tmp_path), "RERUN_ANALYTICS": "0"}
    for command in (["check", str(path)], ["convert", str(path), "-o", str(tmp_path / "a.rrd")]):
        done = subprocess.run(
            [str(RERUN), "mcap", *command], capture_output=True, text=True, timeout=120, check=False, env=environment
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "error" not in (done.stdout + done.stderr).lower()
    assert (tmp_path / "a.rrd").stat().st_size > 10_000


WRITE_FOR_EVER = """
import sys
from itertools import count
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from dataclasses import replace
from synthetic_steps import header, synthetic_steps
from sim.logs.writer import LogWriter
writer = LogWriter(Path(sys.argv[1]), header(), net_xml=b"<net/>")
steps = list(synthetic_steps(10, points=5000))[:9]
for tick in count():
    writer.on_step(replace(steps[tick % 9], tick=tick, timestamp_us=tick * 100_000))
    print(tick, flush=True)
"""


def test_killed_writer_leaves_a_readable_prefix(tmp_path: Path) -> None:
    path = tmp_path / "killed.mcap"
    command = [sys.executable, "-c", WRITE_FOR_EVER, str(path), str(ROOT / "tests")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 120:
                process.send_signal(signal.SIGKILL)
                break
    expected = list(synthetic_steps(10, points=5000))[:9]
    with open_log(path) as log:
        read = list(log.steps())
        assert 80 <= len(read) <= 121  # all but the last chunks of 1 MB
        again = [replace(expected[k % 9], tick=k, timestamp_us=k * 100_000) for k in range(len(read))]
        assert compare_steps(again, read).equal
        assert log.kind.endswith("cut off")
        assert any("cut off after byte" in line for line in log.summary.lines())
        assert log.header == header()
        assert log.road_network == b"<net/>"


def test_writer_refuses_what_it_cannot_keep(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(b"precious")
    with pytest.raises(LogError, match="exists already"):
        LogWriter(path, header())
    assert path.read_bytes() == b"precious"
    with pytest.raises(LogError, match="cannot be written"):
        LogWriter(tmp_path / "absent" / "a.mcap", header())
    writer = LogWriter(tmp_path / "b.mcap", header())
    step = next(synthetic_steps(2))
    with pytest.raises(ValueError, match="/reward"):
        writer.on_step(replace(step, reward=float("nan")))
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.on_step(step)


def test_closed_writers_leave_nothing_behind(tmp_path: Path) -> None:
    before = len(foxglove.channel._channels_by_id)
    for index in range(3):
        write(tmp_path / f"{index}.mcap", list(synthetic_steps(1, points=1)))
    assert len(foxglove.channel._channels_by_id) == before


def test_header_of_this_machine_knows_commit_cpu_and_libraries() -> None:
    made = LogHeader.of_this_machine("{}", seed=1, episode=0, policy="idle", map_name="grid-small")
    assert LogHeader.from_metadata(Path("a.mcap"), made.as_metadata()) == made
    assert made.versions["numpy"] == np.__version__
    assert made.cpu_model
    if (ROOT / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert made.git_commit.removesuffix("-dirty") == head.stdout.strip()


@pytest.mark.parametrize(
    ("field", "value"),
    [("format_version", "99"), ("seed", "x"), ("config", "{"), ("versions", "[]"), ("image_format", "bmp")],
)
def test_damaged_header_is_one_clear_line(field: str, value: str) -> None:
    fields = {**header().as_metadata(), field: value}
    with pytest.raises(LogError, match=r"a\.mcap") as caught:
        LogHeader.from_metadata(Path("a.mcap"), fields)
    assert "\n" not in str(caught.value)
