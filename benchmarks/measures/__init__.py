"""One file a measure; the table is in `vlpbench.benchmarks.measures.base`."""
