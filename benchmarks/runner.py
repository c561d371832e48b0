"""Runs a plan: each cell in a process of its own, each result on the disk before the next is looked at.

Counting cells run side by side; cells that measure memory or time have the machine to themselves, and timed ones are
visited in rounds of random order, so that what drifts in a machine does not favour one architecture; accuracy cells run
side by side, one thread each, and those that share a pre-training wait until the first of them has made it.
"""

from __future__ import annotations

import hashlib
import random
import secrets
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vlpbench.archs import registry
from vlpbench.benchmarks import peaks, weights
from vlpbench.benchmarks.env import code_hash
from vlpbench.benchmarks.measures import base as measures
from vlpbench.benchmarks.plan import Action, sharing
from vlpbench.benchmarks.pool import Pool
from vlpbench.benchmarks.worker import SUBJECT, Job, Outcome
from vlpbench.results.record import Cell, Env, Record, Series, Status
from vlpbench.results.store import FINAL, Round, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vlpbench.benchmarks.plan import Plan
    from vlpbench.benchmarks.progress import Progress
    from vlpbench.results.store import Store


PRELOAD = ("torch", "torchvision", "timm", "open_clip", "fvcore.nn")
"""What takes seconds to import; a name that is missing or fails is left to the child that needs it."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What came of a run."""

    done: int
    """Cells that ended in this run and need no more work."""
    skipped: int
    """Cells that were done before."""
    failed: int
    """Cells that ended in an error, out of memory or out of time."""


class Runner:
    """One run of a plan into a store."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        env: Env,
        *,
        cache: Path,
        progress: Progress,
        tensorboard: str = "",
        score_memory: int | None = None,
    ) -> None:
        self.plan = plan
        self.store = store
        self.env = env
        self.cache = cache
        self.progress = progress
        self.tensorboard = tensorboard
        """Folder in which pre-trainings write events; empty for none."""
        self.score_memory = score_memory
        """Bytes of pair scores that may be held at once; None for the default."""
        self.seed = secrets.randbits(32)
        """Of the orders in which rounds visit their cells."""
        self._statuses: list[Status] = []
        self._peaks: dict[peaks.Key, dict[str, Any]] = {}
        self._work: dict[str, dict[str, Any]] = {}

    def run(self) -> Summary:
        """Measures what the plan says, and nothing else.

        Raises:
            StoreError: if a result cannot be written; what was written before stays.
            KeyboardInterrupt: once all processes are ended.
        """
        todo = self.plan.todo()
        with self.store.writing():
            for item in self.plan.items:
                if item.action is Action.UNSUPPORTED:
                    self._append(item.cell, Outcome(status=Status.UNSUPPORTED, reason=item.reason), _now())
            if todo:
                self._make_cache()
                with Pool(modules(todo)) as pool:
                    self._side_by_side(pool, self.plan.todo("count"), self.plan.width("count"))
                    self._side_by_side(pool, self.plan.todo("memory"), 1)
                    self._interleaved(pool, self.plan.todo("cost"))
                    self._side_by_side(pool, self._longest_first("accuracy"), self.plan.width("accuracy"))
        failed = sum(status not in FINAL for status in self._statuses)
        return Summary(done=len(self._statuses) - failed, skipped=self.plan.count(Action.DONE), failed=failed)

    def _make_cache(self) -> None:
        """Makes the cache folder, and tells git that nothing in it is worth keeping."""
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            (self.cache / ".gitignore").write_text("*\n", encoding="utf-8")
        except OSError as error:
            raise StoreError(
                f"cannot write the cache {self.cache}: {error.strerror}; name another with --cache"
            ) from error

    def _longest_first(self, kind: str) -> list[Cell]:
        items = [item for item in self.plan.items if item.action is Action.RUN and item.kind == kind]
        return [item.cell for item in sorted(items, key=lambda item: -item.seconds)]

    def _side_by_side(self, pool: Pool, cells: Sequence[Cell], width: int) -> None:
        """Keeps ``width`` processes busy. Of cells that share a pre-training, the others wait for the first."""
        keys = {cell.id: sharing(cell) if cell.budget else cell.id for cell in cells}
        trained: set[str] = set()
        started: dict[str, str] = {}

        def start(cell: Cell) -> None:
            started[cell.id] = _now()
            self._start(pool, cell)

        def blocked(cell: Cell) -> bool:
            return keys[cell.id] in {keys[running.job.cell.id] for running in pool.running} - trained

        for running, outcome in pool.keep_busy(cells, width, start, blocked):
            cell = running.job.cell
            if outcome.status is Status.OK:
                trained.add(keys[cell.id])
            self._append(cell, outcome, started[cell.id])

    def _interleaved(self, pool: Pool, cells: Sequence[Cell]) -> None:
        """Visits every cell once a round, in a new order each time, and makes its record when its last round is in."""
        rounds = self.plan.suite.rounds
        wanted = {cell.id for cell in cells}
        parts: dict[str, dict[int, Round]] = defaultdict(dict)
        for part in self.store.rounds(self.env.id, code_hash()):
            if part.cell.id in wanted and part.round < rounds:
                parts[part.cell.id][part.round] = part
                self.progress.visited(part.cell)
        ended = {cell.id for cell in cells if len(parts[cell.id]) == rounds}
        for cell in cells:
            if cell.id in ended:
                self._gather(cell, parts[cell.id])
        left = [cell for cell in cells if cell.id not in ended]
        limit = self.plan.suite.timeout
        self._peaks = peaks.measure(pool, left, limit=limit)
        self._work = peaks.count_work(pool, left, limit=limit, width=self.plan.workers, subject=SUBJECT)
        for number in range(rounds):
            order = [cell for cell in cells if cell.id not in ended and number not in parts[cell.id]]
            random.Random(f"{self.seed}-{number}").shuffle(order)
            for position, cell in enumerate(order):
                started = _now()
                self._start(pool, cell, number)
                ((_, outcome),) = pool.wait()
                if outcome.status is Status.OK:
                    part = self._part(cell, outcome, started, number, position, len(order))
                    self.store.append_round(part)
                    parts[cell.id][number] = part
                    self.progress.visited(cell)
                if outcome.status is not Status.OK or len(parts[cell.id]) == rounds:
                    ended.add(cell.id)
                    self._gather(cell, parts[cell.id], failure=None if outcome.status is Status.OK else outcome)

    def _start(self, pool: Pool, cell: Cell, number: int | None = None) -> None:
        spec = measures.spec(cell.measure)
        threads = 1 if spec.kind in ("count", "accuracy") else None
        job = Job(
            cell=cell,
            measure=spec,
            subject=SUBJECT,
            threads=threads,
            cache=str(self.cache),
            tensorboard=self.tensorboard,
            score_memory=self.score_memory,
            checkpoints=weights.places(self.plan.suite.weights),
        )
        pool.start(job, self.plan.suite.timeout)
        self.progress.began(cell, number)

    def _part(self, cell: Cell, outcome: Outcome, started: str, number: int, position: int, of: int) -> Round:
        return Round(
            id=_hash(cell.id, self.env.id, started),
            cell=cell,
            env_id=self.env.id,
            code=code_hash(),
            round=number,
            seed=self.seed,
            position=position,
            of=of,
            samples=outcome.samples,
            detail=outcome.detail | {"peak": self._peaks[peaks.key_of(cell)], "work": self._work[cell.id]},
            flags=outcome.flags,
            threads=outcome.threads,
            started=started,
            seconds=outcome.seconds,
        )

    def _gather(self, cell: Cell, parts: dict[int, Round], failure: Outcome | None = None) -> None:
        """Makes one record of a cell's rounds; a failure on the way keeps the samples before it."""
        visits = [parts[number] for number in sorted(parts)]
        whole = Outcome(
            status=failure.status if failure else Status.OK,
            reason=failure.reason if failure else "",
            samples=joined(visits),
            detail=explained(visits, measures.spec(cell.measure).quantities[0]),
            flags=tuple(dict.fromkeys(flag for visit in visits for flag in visit.flags)),
            threads=visits[0].threads if visits else failure.threads if failure else 0,
            seconds=sum(visit.seconds for visit in visits) + (failure.seconds if failure else 0.0),
        )
        self._append(cell, whole, min((visit.started for visit in visits), default=_now()))

    def _append(self, cell: Cell, outcome: Outcome, started: str) -> None:
        threads = {"threads": outcome.threads} if outcome.threads else {}
        record = Record(
            id=_hash(cell.id, self.env.id, started),
            cell=cell,
            status=outcome.status,
            reason=outcome.reason,
            samples=outcome.samples,
            detail=outcome.detail,
            flags=outcome.flags,
            env=self.env.model_copy(update=threads),
            code=code_hash(),
            data=outcome.detail.get("data_hash"),
            suite=self.plan.suite.name,
            started=started,
            seconds=outcome.seconds,
        )
        self.store.append(record)
        self._statuses.append(record.status)
        self.progress.ended(record)


def modules(cells: Sequence[Cell]) -> list[str]:
    """Everything that the cells' processes import, to be loaded once for all of them."""
    targets = {measures.spec(cell.measure).target for cell in cells} | {
        registry.get(cell.arch).target for cell in cells
    }
    return [SUBJECT, *sorted(target.partition(":")[0] for target in targets)]


def joined(visits: Sequence[Round]) -> dict[str, Series]:
    """The samples of all rounds, one after the other."""
    found: dict[str, Series] = {}
    for visit in visits:
        for name, series in visit.samples.items():
            before = found[name].values if name in found else ()
            found[name] = Series(unit=series.unit, values=before + series.values)
    return found


def explained(visits: Sequence[Round], quantity: str) -> dict[str, Any]:
    """The detail of a record made of rounds: that of the first, and what was different in each.

    ``rounds`` holds the number of samples of ``quantity`` in each round, ``visits`` where each round stood.
    """
    if not visits:
        return {}
    first = visits[0].detail
    return {
        **first,
        "rounds": [len(visit.samples[quantity].values) if quantity in visit.samples else 0 for visit in visits],
        "visits": [
            visit.model_dump(mode="json", include={"id", "round", "seed", "position", "of", "started", "seconds"})
            | {"detail": {key: value for key, value in visit.detail.items() if first.get(key) != value}}
            for visit in visits
        ],
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
