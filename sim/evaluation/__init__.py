"""Scores of episodes, and suites of episodes to score."""
