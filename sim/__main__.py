"""`python -m sim` is the command line."""

from sim.cli.app import main

main()
