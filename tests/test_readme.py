"""What the README promises is what is run."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_continuous_integration_runs_the_test_line_of_the_readme():
    lines = (ROOT / "README.md").read_text().splitlines()
    start = lines.index("## Test it")
    command = next(line for line in lines[start:] if line.startswith("python3"))
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()
