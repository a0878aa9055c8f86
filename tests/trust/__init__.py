"""What strangers, networks, disks and time do to the program: fuzzed, soaked, unplugged, attacked.

The suite runs a small part of each. `make fuzz`, `make soak` and `make faults` run all of it (`--nightly`), and write
what came of it to docs/RELIABILITY.md (`--reliability NAME`).
"""
