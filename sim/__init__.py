"""The world, the loop, logs, evaluation and the command line."""
