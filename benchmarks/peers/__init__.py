"""The same applications written for other people's libraries, as a careful user of each would write them.

Each module runs as `python -m benchmarks.peers.<module> echo|room|publish [--port P] [--uvloop] [--store FILE]`
and prints `<library> ready ws=ws://127.0.0.1:PORT/ pid=PID` once it listens. Compression and pings are off, as
the load client offers no extension and no run is long enough for a ping. JSON goes through msgspec, the codec
that vixws uses, so that a ratio compares servers and not codecs.
"""
