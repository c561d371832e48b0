"""Gates on a comparison: ``QUANTITY[@ARCH] > FACTOR`` or ``< FACTOR``, where the factor is ``1.1x`` or ``+10%``.

A quantity is one of results/README.md, or ``any``: then ``>`` looks at all of which less is better, and ``<`` at all of
which more is better. ``latency@clip>1.1x`` looks at one architecture. A percentage is a change, so ``latency>10%`` is
``latency>1.1x``, and ``recall_mean<-2%`` is ``recall_mean<0.98x``.

A gate fails where the whole 95 % interval of B/A lies beyond the factor; an end just at the factor is not beyond
it. What is counted (parameters, FLOPs) has no interval and needs none. Anything else without an interval, such as a
single sample, is undecided and fails no gate. A number that A has and B's failed cell lacks fails; and so does a gate
that finds nothing to judge.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vlpbench.reports.compare import Change
from vlpbench.results.record import UNITS

ANY = "any"
_FORM = re.compile(r"([a-z]\w*)(?:@([\w+.-]+))?([<>])([+-]?\d+(?:\.\d+)?)(x|%)")
GRAMMAR = "QUANTITY[@ARCH]>FACTOR or <FACTOR, as in latency>1.1x, recall_mean@clip<-2%, any>1.05x"


class GateError(ValueError):
    """A gate that cannot be read. The message says what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A limit on a ratio."""

    text: str
    """As it was written."""
    quantity: str
    arch: str | None
    sign: Literal["<", ">"]
    factor: float

    def concerns(self, change: Change) -> bool:
        """Whether it is about this quantity of this cell."""
        if self.arch not in (None, change.cell.arch):
            return False
        if self.quantity == ANY:
            return change.meaning.better == ("lower" if self.sign == ">" else "higher")
        return self.quantity == change.quantity

    def beyond(self, ratio: float) -> bool:
        """Whether a ratio exceeds the limit; one that equals it does not."""
        return ratio > self.factor if self.sign == ">" else ratio < self.factor


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a gate came to."""

    gate: Gate
    failed: tuple[Change, ...]
    undecided: tuple[Change, ...]
    """Whose ratio is beyond the limit, and whose interval is not, or is unknown."""
    judged: int
    """Changes that it is about."""

    @property
    def passed(self) -> bool:
        """Whether there was something to judge and nothing failed."""
        return bool(self.judged) and not self.failed


def parse(text: str) -> Gate:
    """Reads a gate.

    Raises:
        GateError: for one that is malformed or names a quantity that does not exist.
    """
    found = _FORM.fullmatch(re.sub(r"\s+", "", text))
    if found is None:
        raise GateError(f"{text!r} is no gate: write {GRAMMAR}")
    name, arch, sign, number, kind = found.groups()
    if name != ANY and name not in UNITS:
        close = difflib.get_close_matches(name, [ANY, *UNITS], n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise GateError(f"{text!r} names no quantity: {hint}known are {ANY}, {', '.join(UNITS)}")
    if kind == "%" and sign == "<" and number[0] not in "+-":
        raise GateError(f"{text!r} does not say which way: a percentage is a change, write {name}<-{number}%")
    if kind == "x" and number[0] in "+-":
        raise GateError(f"{text!r}: a factor has no sign; write {number.lstrip('+-')}x, or a change such as +10%")
    factor = float(number) if kind == "x" else 1 + float(number) / 100
    if factor <= 0:
        raise GateError(f"{text!r}: no ratio is beyond {factor:g}; write a factor above 0")
    return Gate(text=text, quantity=name, arch=arch, sign="<" if sign == "<" else ">", factor=factor)


def judge(gate: Gate, changes: Sequence[Change]) -> Outcome:
    """Applies a gate."""
    concerned = [change for change in changes if gate.concerns(change)]
    failed, undecided = [], []
    for change in concerned:
        ends = None if change.ratio is None else change.ratio.interval
        if change.after is None or (ends is not None and all(map(gate.beyond, ends))):
            failed.append(change)
        elif change.ratio is not None and gate.beyond(change.ratio.value):
            undecided.append(change)
    return Outcome(gate=gate, failed=tuple(failed), undecided=tuple(undecided), judged=len(concerned))
