"""Training objectives, one file each. Names map to modules lazily in `vlpbench.archs.objectives.base`."""
