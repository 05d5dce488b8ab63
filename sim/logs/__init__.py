"""Recording and reading sensor logs."""
