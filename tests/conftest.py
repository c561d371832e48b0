"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--oracles", type=Path, default=None, help="folder of recorded official outputs (../shared/oracles)"
    )


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of fixtures beside the repository."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"the fixtures beside the repository are absent: {folder.name}/ is not there")
    return folder


@pytest.fixture(scope="session")
def oracles(request: pytest.FixtureRequest) -> Path:
    """Recorded outputs of the official implementations."""
    given = request.config.getoption("--oracles")
    folder = given if given is not None else ROOT.parent / "shared" / "oracles"
    if not folder.is_dir():
        pytest.skip("the recorded official outputs are absent; name their folder with --oracles DIR")
    return folder
