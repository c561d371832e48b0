"""Data sources; the protocol they share is in `vlpbench.benchmarks.data.base`."""
