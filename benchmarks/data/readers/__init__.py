"""Readers of annotation files, each for one public format. `vlpbench.benchmarks.data.catalogue` says which reads what.

A reader is a function of a `vlpbench.benchmarks.data.readers.reading.Reading` that returns rows by split. It imports
neither torch nor numpy, opens no picture, and names every sample that it cannot use.
"""
