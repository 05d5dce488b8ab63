"""Recordings of traffic as scenes that can be driven in."""
