"""Loopback benchmarks: the shipped server beside other libraries' servers, in the same rounds.

`python -m benchmarks --help` says how to run them. `wsload.c` is the load client and the measuring tool.
"""
