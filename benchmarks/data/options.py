"""What a user may say of a data set's files: the field ``data_options`` of a cell. No torch, no numpy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from vlpbench.archs.registry import nearest
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.cleaning import CLEANING

Some = Annotated[int, Field(ge=1)]


class DataOptions(BaseModel):
    """How files are read. Fields left out take the meaning in their docstring."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    faulty: Literal["skip", "fail"] = "fail"
    """What to do with a sample that cannot be used: leave it out and say so in the record, or stop. ``skip`` decodes
    all pictures of a split when it is opened."""
    captions: Literal["five", "all"] = "five"
    """Of a picture: the first five, or all there are (COCO has up to seven)."""
    clean: str = "architecture"
    """Whose released code takes punctuation out of texts: ``architecture`` for the architecture's own, ``none``, or one
    of `vlpbench.benchmarks.data.cleaning.CLEANING`."""
    tested_on: str = ""
    """Data set with captions that a model which is trained on shards is tested on."""
    least: Some | None = None
    """Questions that an answer must be the answer of to be on the list of answers; None is the data set's: 9 of VQA v2,
    1 of all others."""


def options_of(given: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> DataOptions:
    """Options from names and values.

    Raises:
        DataError: for an unknown name, with the nearest one, or a value that it cannot have.
    """
    values = dict(given)
    for name in values:
        if name not in DataOptions.model_fields:
            raise DataError(nearest("data option", name, list(DataOptions.model_fields)))
    releases = ["architecture", "none", *CLEANING]
    if (clean := values.get("clean", releases[0])) not in releases:
        raise DataError(f"data option clean: {nearest('cleaning', str(clean), releases)}")
    try:
        return DataOptions(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        raise DataError(f"data option {name} = {values[name]!r}: {first['msg']}") from error
