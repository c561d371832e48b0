"""Reading ahead: what a loop will ask for is made by processes of their own, and given out in the order asked for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, Self, cast, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

WORKERS_VARIABLE = "VLPBENCH_WORKERS"
"""Environment variable with the number of processes that read ahead; unset for `workers`."""
MOST = 4
"""Processes that are used without being asked for."""
AHEAD = 3
"""Batches that a process makes before they are asked for."""


@runtime_checkable
class Readable(Protocol):
    """Data whose rows take time to read, so that it is worth reading them ahead."""

    def expecting(self, rows: Iterable[np.ndarray], workers: int) -> AbstractContextManager[None]:
        """In the context, batches of these rows, in this order, are read ahead; others are read when asked for."""
        ...


@runtime_checkable
class ReadableImages(Protocol):
    """A gallery whose images take time to read."""

    def expecting_images(self, rows: Iterable[np.ndarray], workers: int) -> AbstractContextManager[None]:
        """As `Readable.expecting`, for ``image_batch``."""
        ...


def workers() -> int:
    """Processes that read ahead: as asked for, or one for every second core, the others being for the model.

    Raises:
        ValueError: where the environment asks for something that is no number.
    """
    given = os.environ.get(WORKERS_VARIABLE, "")
    if given:
        if not given.isdigit():
            raise ValueError(f"{WORKERS_VARIABLE} = {given!r} is no number of processes; write 0, 1, 2, ...")
        return int(given)
    return max(1, min(MOST, len(os.sched_getaffinity(0)) // 2))


def expecting(data: Any, rows: Iterable[np.ndarray]) -> AbstractContextManager[None]:
    """Context in which ``data`` reads these rows ahead, if it is made for that."""
    return data.expecting(rows, workers()) if isinstance(data, Readable) else nullcontext()


def expecting_images(gallery: Any, rows: Iterable[np.ndarray]) -> AbstractContextManager[None]:
    """The same for the images of a gallery."""
    return gallery.expecting_images(rows, workers()) if isinstance(gallery, ReadableImages) else nullcontext()


class Ahead:
    """Results of ``read`` for a sequence of rows, in its order, whatever the number of processes.

    Only what can be pickled goes between processes, through pipes, so no shared memory is filled.
    """

    def __init__(self, read: Callable[[np.ndarray], Any], rows: Iterable[np.ndarray], workers: int) -> None:
        self._read, self._rows, self._workers = read, rows, workers
        self._loader: DataLoader[Any] | None = None
        self._found: Iterator[tuple[np.ndarray, Any]] | None = None
        self._next: tuple[np.ndarray, Any] | None = None

    def __enter__(self) -> Self:
        from torch.utils.data import DataLoader

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of more processes than cores: they were asked for
            self._loader = DataLoader(
                cast("Any", _Reads(self._read)),  # what torch asks of a data set, it has
                batch_size=None,
                sampler=_Listed(self._rows),
                num_workers=self._workers,
                prefetch_factor=AHEAD,
                multiprocessing_context="fork",  # the data is large and is not copied
                collate_fn=_as_is,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._found = self._loader = self._next = None  # ends the processes

    def take(self, rows: np.ndarray) -> Any:
        """What ``read`` gives for these rows: read ahead where they are next in line, else here and now.

        Raises:
            DataError: what ``read`` raised, wherever it ran.
        """
        if self._next is None:
            self._next = next(self._iterator(), None)
        if self._next is None or not np.array_equal(self._next[0], rows):
            return self._read(rows)
        (_, found), self._next = self._next, None
        if isinstance(found, Exception):
            raise found
        return found

    def _iterator(self) -> Iterator[tuple[np.ndarray, Any]]:
        if self._found is None:
            if self._loader is None:
                raise RuntimeError("reading ahead has ended: take batches inside the context")
            with warnings.catch_warnings():
                # Python warns of forks beside threads: the processes only decode, and take none of the model's locks.
                warnings.simplefilter("ignore")
                self._found = iter(self._loader)
        return self._found


class _Reads:
    """A data set of torch whose index is the rows of a batch."""

    def __init__(self, read: Callable[[np.ndarray], Any]) -> None:
        self.read = read

    def __getitem__(self, rows: np.ndarray) -> tuple[np.ndarray, Any]:
        try:
            return rows, self.read(rows)
        except Exception as error:  # an exception of a process would lose its type on the way
            return rows, error

    def __len__(self) -> int:
        raise TypeError("rows come from a sampler, which may be endless")


class _Listed:
    """A sampler over rows that are known."""

    def __init__(self, rows: Iterable[np.ndarray]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.rows)


def _as_is(item: Any) -> Any:
    return item
