"""Vehicles that are not the ego, and traffic signals."""
