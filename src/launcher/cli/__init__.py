"""The command line: a thin client of the native HTTP API.

It starts on every key press of a completion, so its modules import the standard library's light parts and
nothing of launcher outside this package; what only `serve`, `doctor` or `image build-tiny` needs is imported
when they run.
"""
