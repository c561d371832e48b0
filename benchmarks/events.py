"""TensorBoard events of pre-trainings: losses, rate and what was seen on the way, a run folder for each training.

The package is optional: it is imported only where events are asked for.
"""

from __future__ import annotations

import importlib.util
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vlpbench.benchmarks.fields import SuiteError
from vlpbench.benchmarks.worker import BOARD_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vlpbench.benchmarks.curve import Curve
    from vlpbench.benchmarks.loop import Progress
    from vlpbench.benchmarks.schedule import TrainConfig
    from vlpbench.results.record import Cell


def require() -> None:
    """Raises `SuiteError` where the package is missing, with what to install."""
    if importlib.util.find_spec("tensorboard") is None:
        raise SuiteError("--tensorboard needs a package that is not here: pip install 'vlpbench[tensorboard]'")


class Events:
    """Writes one run; each entry is on the disk when `add` returns, so that a run can be followed."""

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        """Makes the folder."""
        require()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))
        self._config = config

    def add(self, step: int, values: dict[str, float], kind: str) -> None:
        """Values by name after ``step`` steps, below ``kind`` in TensorBoard's list."""
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)
        self._writer.flush()

    def window(self, step: int, losses: dict[str, float]) -> None:
        """Mean losses of a window, and the rate of its last step."""
        self.add(step, losses, "loss")
        self.add(step, {"lr": self._config.lr_at(step - 1)}, "schedule")

    def replay(self, curve: Curve) -> None:
        """All of a training that was found finished."""
        for place, step in enumerate(curve.step):
            self.window(step, {name: values[place] for name, values in curve.loss.items()})
        for place, step in enumerate(curve.looks.step):
            self.add(step, {name: values[place] for name, values in curve.looks.metrics.items()}, "validation")

    def progress(self, objectives: tuple[str, ...], then: Progress | None) -> Progress:
        """Writes what a training tells of itself, and hands it on.

        Args:
            objectives: names of the losses; whatever else is told, but their total, was seen in a look.
            then: called after.
        """
        losses = {*objectives, "total"}

        def told(done: int, steps: int, means: dict[str, float]) -> None:
            self.window(done, {name: value for name, value in means.items() if name in losses})
            self.add(done, {name: value for name, value in means.items() if name not in losses}, "validation")
            if then:
                then(done, steps, means)

        return told

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()


@contextmanager
def written(
    cell: Cell, key: str, config: TrainConfig, objectives: tuple[str, ...], progress: Progress | None
) -> Iterator[Progress | None]:
    """``progress`` of a pre-training, with events written as it tells of itself where they are asked for."""
    folder = _run_folder(cell, key)
    if folder is None:
        yield progress
        return
    events = Events(folder, config)
    try:
        yield events.progress(objectives, progress)
    finally:
        events.close()


def replayed(cell: Cell, key: str, config: TrainConfig, curve: Curve) -> None:
    """Writes the events of a pre-training that was found finished, where they are asked for and not there already."""
    folder = _run_folder(cell, key)
    if folder is None or folder.exists():
        return
    events = Events(folder, config)
    events.replay(curve)
    events.close()


def _run_folder(cell: Cell, key: str) -> Path | None:
    """Where the events of a pre-training go; None where none are asked for."""
    given = os.environ.get(BOARD_VARIABLE)
    return Path(given) / f"{cell.arch}-{cell.momentum}-{key}" if given else None
