"""Measurements of the service and its parts. `scripts/bench` runs the main ones; docs/benchmarks.md lists all."""
