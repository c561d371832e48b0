"""Files of a training: states that a killed run goes on from, and finished weights that other cells share."""

from __future__ import annotations

import fcntl
import logging
import os
import pickle
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = 1
SHARE = 20
"""A save is due no sooner than this many times its own duration: writing costs at most a twentieth of a run."""

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class StateFile:
    """One file with a state in it, replaced in one move, so that it is whole or absent whatever is killed.

    It is not forced to the disk: a state lost with the machine's power is trained again.
    """

    path: Path
    key: str
    """Hash of everything that determines the state; a file that holds another key is not used."""
    every: float = 30.0
    """Seconds between two saves of a running training."""
    _last: float = field(default_factory=time.monotonic)
    _cost: float = 0.0

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._last >= max(self.every, SHARE * self._cost)

    def save(self, state: dict[str, Any]) -> None:
        """Writes tensors, numbers, strings and containers of them.

        Raises:
            OSError: where there is no room or no permission; what was there before stays.
        """
        start = time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}.draft")
        try:
            torch.save({"format": FORMAT, "key": self.key, "state": state}, draft)
            draft.replace(self.path)
        finally:
            draft.unlink(missing_ok=True)
        self._last = time.monotonic()
        self._cost = self._last - start

    def load(self) -> dict[str, Any] | None:
        """The state on the CPU; None where there is none that can be used, which is logged if a file is there."""
        if not self.path.exists():
            return None
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
            fits = isinstance(found, dict) and found.get("format") == FORMAT and found.get("key") == self.key
        except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            log.warning("%s cannot be read (%s); it is trained again", self.path, error)
            return None
        if not fits:
            log.warning("%s belongs to another training; it is trained again", self.path)
            return None
        return found["state"]

    def remove(self) -> None:
        """Takes the file away if it is there."""
        self.path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time goes on; the others wait here. The system lifts the lock of a process that dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
