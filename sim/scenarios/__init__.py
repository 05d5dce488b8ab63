"""Scenarios: situations with a title, drawn parameters and named checks."""
