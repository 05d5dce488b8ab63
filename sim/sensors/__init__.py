"""Simulated camera and LiDAR."""
