"""What a run says while it runs: a live bar on a terminal, plain lines elsewhere, records as JSON for machines."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self, TextIO

from vlpbench.benchmarks.fields import label
from vlpbench.benchmarks.plan import Action

if TYPE_CHECKING:
    from vlpbench.benchmarks.plan import Plan
    from vlpbench.results.record import Cell, Record


MINIMUM = 5.0
"""Seconds of estimated work below which the pace so far tells little."""


def duration(seconds: float) -> str:
    """A span of time for people: ``8 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


class Progress:
    """Follows a plan, and says nothing. Others override what they show."""

    def __init__(self, plan: Plan) -> None:
        wide = {kind: plan.width(kind) for kind in {item.kind for item in plan.items}}
        self._weights = {i.cell.id: i.seconds / wide[i.kind] for i in plan.items if i.action is Action.RUN}
        self._rounds = plan.suite.rounds
        self._spent = 0.0
        self._started: float | None = None
        self.cells = sum(item.action is not Action.DONE for item in plan.items)
        self.ended_cells = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes away what is on the screen."""

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def began(self, cell: Cell, round_number: int | None = None) -> None:
        """A process has started; of a cell in rounds, the round is given, from 0."""
        self._started = self._started or time.monotonic()

    def visited(self, cell: Cell) -> None:
        """One round of a cell is in."""
        self._spend(cell, self._weights.get(cell.id, 0.0) / self._rounds)

    def ended(self, record: Record) -> None:
        """A record was appended."""
        self.ended_cells += 1
        self._spend(record.cell, float("inf"))

    def left(self) -> float | None:
        """Seconds to go: the estimate, corrected by how the estimates did so far; None where there is no telling."""
        rest = sum(self._weights.values())
        if self._started is None or rest <= 0:
            return rest or None
        trust = max(MINIMUM, (self._spent + rest) / 10)  # the first few cells do not overthrow the estimate
        return rest * (time.monotonic() - self._started + trust) / (self._spent + trust)

    def _spend(self, cell: Cell, most: float) -> None:
        spent = min(most, self._weights.get(cell.id, 0.0))
        self._spent += spent
        if cell.id in self._weights:
            self._weights[cell.id] -= spent


class Plain(Progress):
    """One line for every record."""

    def __init__(self, plan: Plan, stream: TextIO | None = None) -> None:
        super().__init__(plan)
        self._stream = stream or sys.stderr

    def note(self, text: str) -> None:
        """As a line of its own."""
        print(text, file=self._stream, flush=True)

    def ended(self, record: Record) -> None:
        """Number, status, cell and time, and how long the rest will take."""
        super().ended(record)
        self.note(self.line(record))

    def line(self, record: Record) -> str:
        """What `ended` prints."""
        width = len(str(self.cells))
        head = f"[{self.ended_cells:>{width}}/{self.cells}] {record.status.value:<11} {label(record.cell)}"
        why = f": {record.reason.splitlines()[0]}" if record.reason else f" ({record.seconds:.1f} s)"
        left = self.left() if self.ended_cells < self.cells else None
        return head + why + (f", about {duration(left)} left" if left else "")


class Json(Progress):
    """Each record as one line of JSON on standard output, as it is appended, and nothing else."""

    def ended(self, record: Record) -> None:
        """The record."""
        super().ended(record)
        print(record.model_dump_json(), flush=True)


class Live(Plain):
    """A bar with what runs now and the time that is left, and lines above it for what did not end well."""

    def __init__(self, plan: Plan) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        super().__init__(plan)
        columns = (MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        # Once a second: the screen is drawn on a core that a timed cell may need.
        self._bar = Bar(*columns, console=Console(stderr=True), refresh_per_second=1)
        self._task = self._bar.add_task("loading torch", total=self.cells)
        self._bar.start()

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.stop()

    def note(self, text: str) -> None:
        """Above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)

    def began(self, cell: Cell, round_number: int | None = None) -> None:
        """Says what runs."""
        super().began(cell, round_number)
        left = self.left()
        rounds = "" if round_number is None else f"round {round_number + 1} of {self._rounds}: "
        rest = f"about {duration(left)} left, " if left else ""
        self._bar.update(self._task, description=f"{rest}{rounds}{label(cell)}")

    def ended(self, record: Record) -> None:
        """Moves the bar."""
        Progress.ended(self, record)
        self._bar.update(self._task, completed=self.ended_cells)
        if record.reason:
            self.note(self.line(record))


def progress_for(plan: Plan, *, json: bool) -> Progress:
    """What suits the place where the output goes."""
    if json:
        return Json(plan)
    return Live(plan) if sys.stderr.isatty() else Plain(plan)
