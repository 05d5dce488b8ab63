"""Pictures of recordings: raw encodings, calibrations of regions and of rectified or binned pictures, sizes, damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_sim_logs_ros import SECOND_NS, STORE, camera_info, cloud, jpeg, points_of, read, write_bag

from sim.logs.pictures import PictureError, decode_picture, picture_size
from sim.logs.recorded import MessageError, RawMessage, RecordedCalibration
from sim.logs.ros import decode_ros, raw_pixels


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
