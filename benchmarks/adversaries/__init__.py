"""Fifty sessions that mean harm beside fifty that do not, on one server: `python -m benchmarks.adversaries`."""
