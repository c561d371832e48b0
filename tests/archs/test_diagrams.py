"""The drawings of docs/architectures.md are those of the models."""

from pathlib import Path

import pytest
from vlpbench.archs import registry
from vlpbench.benchmarks import cli

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_architecture_has_a_drawing() -> None:
    text = (DOCS / "architectures.md").read_text(encoding="utf-8")
    assert all(f"(diagrams/{name}.svg)" in text for name in registry.specs())
    assert {path.stem for path in (DOCS / "diagrams").glob("*.svg")} == set(registry.specs())


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.specs())
def test_a_drawing_is_that_of_the_model(name: str, tmp_path: Path) -> None:
    assert cli.main(["archs", name, "--diagram", str(tmp_path / "new.svg")]) == 0
    drawn = (DOCS / "diagrams" / f"{name}.svg").read_text(encoding="utf-8")
    assert (tmp_path / "new.svg").read_text(encoding="utf-8") == drawn
