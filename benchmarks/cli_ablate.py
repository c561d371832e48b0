"""``vlpbench ablate``."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING, Any

from vlpbench.benchmarks import env as environment
from vlpbench.benchmarks.ablation import PARTS, Wish, suite_of, without_ladder
from vlpbench.benchmarks.cli_run import run_suite
from vlpbench.benchmarks.fields import SuiteError, check_value

if TYPE_CHECKING:
    from argparse import Namespace

    from vlpbench.benchmarks.suite import Suite
    from vlpbench.reports.ablation_rows import Line
    from vlpbench.results.store import Store


def ablate(options: Namespace) -> int:
    """Measures what is missing of an ablation and prints its tables."""
    wish = wish_of(options)
    suite = suite_of(wish)
    if "ladder" in wish.parts and not options.json and (reason := without_ladder(wish)):
        print(f"no ladder: {reason}", file=sys.stderr)
    return run_suite(suite, options, lambda store: _closing(store, suite))


def wish_of(options: Namespace) -> Wish:
    """What the command line asks for.

    Raises:
        SuiteError: for a value that cannot be read.
    """
    for name in ("device", "data"):
        try:
            check_value(name, getattr(options, name))
        except ValueError as error:
            raise SuiteError(f"--{name}: {error}") from error
    try:
        noise = tuple(float(level) for level in _split(options.noise))
    except ValueError as error:
        raise SuiteError(f"--noise {options.noise!r}: write shares of captions, such as 0,0.25,0.5") from error
    sweeps = _split(options.sweep)
    return Wish(
        arch=options.arch,
        objectives=_split(options.objectives),
        momentum=_split(options.momentum),
        sweeps=sweeps + (("noise",) if noise and "noise" not in sweeps else ()),
        parts=_split(options.only) or PARTS,
        noise=noise,
        seeds=options.seeds,
        size=options.size,
        budget=options.budget,
        finetune=options.finetune,
        data=options.data,
        device=environment.default_device() if options.device == "auto" else options.device,
    )


def _split(given: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in (given or "").split(",") if part.strip()))


def _closing(store: Store, suite: Suite) -> tuple[list[str], dict[str, Any]]:
    """The tables of which most rows were asked for; the folder may hold others."""
    from vlpbench.reports import ablation_words as words
    from vlpbench.reports.ablation import studies
    from vlpbench.reports.ablation_text import as_json, text

    asked = {cell.id for cell in suite.cells}
    found = [study for study in studies(store.records()) if fmean(map(_within(asked), study.lines)) > 0.5]
    notes = {"factorial": words.EFFECTS, "sweep": words.GAINS}
    used = [notes[kind] for kind in notes if any(study.kind == kind and study.effects for study in found)]
    changes = [words.CHANGES] if any(e.change for s in found for line in s.lines for e in line.entries.values()) else []
    lines = [f"{text(study)}\n" for study in found]
    lines += [f"{textwrap.fill(note, 120)}\n" for note in ([words.METHOD, *changes, *used] if found else [])]
    return lines, {"ablation": [as_json(study) for study in found]}


def _within(asked: set[str]) -> Callable[[Line], bool]:
    return lambda line: any(r.cell.id in asked for entry in line.entries.values() for r in entry.records)
