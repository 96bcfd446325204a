"""Conformance with RFC 6455: the whole server and the client under the Autobahn Testsuite.

`python -m tests.conformance ci` runs what every change has to pass, `python -m tests.conformance all` everything. Each
run is a row of the table in `cases`: which side, which loop, which cases, and exactly how many results of each word
Autobahn has to give. Only OK and INFORMATIONAL are good words; one case more or fewer is a failure too.

- `server`: `wstest -m fuzzingclient` against `echo_server`, a process of its own.
- `client`: `wstest -m fuzzingserver`, which `echo_client` connects to, once for each case.

Both echo programs use public names only. Autobahn is a program for CPython 2.7 and has an environment of its own,
`.venv27` here or wherever `AUTOBAHN_PYTHON` names an interpreter; docs/conformance.md says how to make it. Where it is
missing a run fails, in one line.
"""
