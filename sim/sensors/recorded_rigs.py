"""Calibrations of cars whose recordings people use: where their cameras and LiDARs are, and how they see.

Knows published numbers and where they come from; knows nothing about rays, solids or the world.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.geometry import inverse, rotation_from_euler, rotation_from_quaternion, se3
from perception.sensors import CameraCalibration


@dataclass(frozen=True)
class RecordedRig:
    """cameras: by name, in ego. lidar_model, lidar_rate_hz: as in `lidar_models`. ego_from_lidar: (4, 4) float64, the
    LiDAR's own axes x forward, y left, z up of its housing, which need not be those of its driver."""

    cameras: dict[str, CameraCalibration]
    lidar_model: str
    lidar_rate_hz: int
    ego_from_lidar: NDArray[np.float64]


def kitti() -> RecordedRig:
    """The car of KITTI, as of 26 September 2011: colour cameras 2 and 3, rectified, and the HDL-64E.

    Calibration files of the raw recordings of that day (Geiger et al., 2013); heights and the distance of the Velodyne from
    the rear axle from the drawing of the setup on the dataset's page, which ignores its tilt of under a degree.
    """
    ego_from_velodyne = se3(np.eye(3), [0.76, 0.0, 1.73])
    camera0_from_velodyne = se3(
        [
            [7.533745e-03, -9.999714e-01, -6.166020e-04],
            [1.480249e-02, 7.280733e-04, -9.998902e-01],
            [9.998621e-01, 7.523790e-03, 1.480755e-02],
        ],
        [-4.069766e-03, -7.631618e-02, -2.717806e-01],
    )
    rectified_from_camera0 = se3(
        [
            [9.999239e-01, 9.837760e-03, -7.445048e-03],
            [-9.869795e-03, 9.999421e-01, -4.278459e-03],
            [7.402527e-03, 4.351614e-03, 9.999631e-01],
        ],
        [0.0, 0.0, 0.0],
    )
    intrinsics = np.array([[7.215377e02, 0.0, 6.095593e02], [0.0, 7.215377e02, 1.728540e02], [0.0, 0.0, 1.0]])
    last_columns = {
        "camera_2": [4.485728e01, 2.163791e-01, 2.745884e-03],
        "camera_3": [-3.395242e02, 2.199936e00, 2.729905e-03],
    }
    cameras = {}
    for name, last_column in last_columns.items():
        camera_from_rectified = se3(np.eye(3), np.linalg.solve(intrinsics, last_column))
        camera_from_velodyne = camera_from_rectified @ rectified_from_camera0 @ camera0_from_velodyne
        ego_from_camera = ego_from_velodyne @ inverse(camera_from_velodyne)
        cameras[name] = CameraCalibration(1242, 375, intrinsics, ego_from_camera)
    return RecordedRig(cameras, "HDL-64E", 10, ego_from_velodyne)


# Focal length, principal point, place in ego, and quaternion w x y z of ego_from_camera.
_NUSCENES_CAMERAS = {
    "camera_front": (
        1266.417203046554, 816.2670197447984, 491.50706579294757,
        (1.70079118954, 0.0159456324149, 1.51095763913),
        (0.4998015430569128, -0.5030316162024876, 0.4997798114386805, -0.49737083824542755),
    ),
    "camera_front_right": (
        1260.8474446004698, 807.968244525554, 495.3344268742088,
        (1.5508477543, -0.493404796419, 1.49574800619),
        (0.2060347966337182, -0.2026940577919598, 0.6824507824531167, -0.6713610884174485),
    ),
    "camera_front_left": (
        1272.5979470598488, 826.6154927353808, 479.75165386361925,
        (1.52387798135, 0.494631336551, 1.50932822144),
        (0.6757265034669446, -0.6736266522251881, 0.21214015046209478, -0.21122827103904068),
    ),
    "camera_back": (
        809.2209905677063, 829.2196003259838, 481.77842384512485,
        (0.0283260309358, 0.00345136761476, 1.57910346144),
        (0.5037872666382278, -0.49740249788611096, -0.4941850223835201, 0.5045496097725578),
    ),
    "camera_back_left": (
        1256.7414812095406, 792.1125740759628, 492.7757465151356,
        (1.03569100218, 0.484795032713, 1.59097014818),
        (0.6924185592174665, -0.7031619420114925, -0.11648342771943819, 0.11203317912370753),
    ),
    "camera_back_right": (
        1259.5137405846733, 807.2529053838625, 501.19579884916527,
        (1.0148780988, -0.480568219723, 1.56239545128),
        (0.12280980120078765, -0.132400842670559, -0.7004305821388234, 0.690496031265798),
    ),
}  # fmt: skip


def nuscenes() -> RecordedRig:
    """A car of nuScenes: six cameras and the HDL-32E.

    The calibrated_sensor records of log n015-2018-07-24 (Singapore), scene 0061 of v1.0; other logs differ by centimetres
    and tenths of degrees. The pictures are rectified. Caesar et al., 2020.
    """
    cameras = {}
    for name, (focal, cx, cy, place, (w, x, y, z)) in _NUSCENES_CAMERAS.items():
        intrinsics = np.array([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]])
        ego_from_camera = se3(rotation_from_quaternion(x, y, z, w), place)
        cameras[name] = CameraCalibration(1600, 900, intrinsics, ego_from_camera)
    driver = rotation_from_quaternion(
        -0.006492242056004365, 0.010646214713995808, -0.7063073142877817, 0.7077955119163518
    )
    # Their LiDAR frame has x right and y forward.
    housing = driver @ rotation_from_euler(np.pi / 2)
    return RecordedRig(cameras, "HDL-32E", 20, se3(housing, [0.943713, 0.0, 1.84023]))


def pandaset() -> RecordedRig:
    """The car of PandaSet: front camera and Pandar64.

    Camera from the CameraInfo and /tf_static of a recording in San Francisco, whose pictures count as undistorted. Its cloud
    comes in a frame that is not the sensor's: the LiDAR's place was fitted to the sweeps, as the one seen from which the
    elevations of all points gather most sharply into beams; good to some centimetres in height and 0.3 m along the car.
    """
    intrinsics = np.array([[1970.0131, 0.0, 970.0002], [0.0, 1970.0091, 483.2988], [0.0, 0.0, 1.0]])
    ego_from_camera = se3(
        [
            [4.3472351938e-03, 3.3415524170e-03, 9.9998496767e-01],
            [-9.9981294628e-01, -1.8831609393e-02, 4.4094151210e-03],
            [1.8846060602e-02, -9.9981708553e-01, 3.2590619321e-03],
        ],
        [8.5181380326e-01, -6.1274610309e-05, 2.1071348279e00],
    )
    cameras = {"camera_front": CameraCalibration(1920, 1080, intrinsics, ego_from_camera)}
    return RecordedRig(cameras, "Pandar64", 10, se3(np.eye(3), [1.5, 0.0, 2.05]))
