"""Fixtures of the tests of what runs and measures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from vlpbench.benchmarks.worker import CACHE_VARIABLE


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of pre-trainings that all tests of a file share."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder))
        yield folder
