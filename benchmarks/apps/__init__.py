"""The applications that benchmarks serve: at most 15 lines each, public names only."""
