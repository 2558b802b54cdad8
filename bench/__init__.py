"""The benchmarks: `make bench-NAME` runs `bench/NAME.py`. What they measure and found stands in docs/benchmarks.md."""
