"""What is stored: records, units, and the append-only store."""
