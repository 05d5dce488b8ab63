"""Sensors to features: the contract of the project and the encoders of camera and LiDAR."""
