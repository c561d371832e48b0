"""The summary in words. Every sentence is made from the records, with its numbers and the records behind them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vlpbench.reports import details, gallery, stats
from vlpbench.reports.board import Board
from vlpbench.reports.measured import Measured
from vlpbench.reports.names import Row, arch_title
from vlpbench.reports.stats import Estimate
from vlpbench.reports.table import STATUS_WORDS
from vlpbench.reports.units import duration, scale, times
from vlpbench.results.record import Env, Record, Status

MOST = 2
"""Sentences on momentum, where many recipes were measured."""


LONG = 7
"""Variants that a sentence lists; of more the first few and the last."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One sentence or a few, under a heading of a word or two."""

    lead: str
    text: str
    records: tuple[str, ...] = ()
    """Ids of the records it was computed from."""


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def ranked(words: Sequence[str]) -> str:
    """What is in an order, listed; of a long list the first few and the last."""
    if len(words) <= LONG:
        return listed(words)
    return listed([*words[: LONG - 3], f"{len(words) - LONG + 2} more", words[-1]])


def machine(env: Env) -> str:
    """A machine in a clause."""
    versions = ", ".join(f"{name} {env.versions[name]}" for name in ("torch",) if name in env.versions)
    gpu = f"one {env.gpu}" if env.gpu else "no GPU"
    system = re.match(r"[A-Za-z]+[- ][\d.]*", env.os)
    software = ", ".join(filter(None, (versions, system.group().replace("-", " ") if system else env.os)))
    return f"{env.cpu} ({env.cores} cores, {env.memory / 2**30:.0f} GiB, {gpu}; {software})"


def scope(records: Sequence[Record]) -> str:
    """What was measured, on what, and how it went."""
    archs = list(dict.fromkeys(arch_title(r.cell.arch.partition("+")[0]) for r in records))
    variants = {r.cell.variant for r in records}
    ended = Counter(r.status for r in records)
    failed = [f"{count} {STATUS_WORDS[status]}" for status, count in ended.items() if status is not Status.OK]
    envs = list({r.env.id: r.env for r in records}.values())
    days = sorted({r.started[:10] for r in records})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    rest = f", {len(records) - ended[Status.OK]} not ({listed(failed)})" if failed else ""
    return (
        f"{counted(len(variants), 'variant')} of {counted(len(archs), 'architecture')} ({listed(archs)}) in "
        f"{counted(len(records), 'cell')}: {ended[Status.OK]} measured{rest}. Run {when} on "
        f"{listed([machine(env) for env in envs])}, in {duration(sum(r.seconds for r in records))} of cell time."
    )


def counted(n: int, noun: str) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def limits(records: Sequence[Record]) -> list[str]:
    """How far the numbers reach: sizes, data, seeds, environments."""
    trained = [
        r
        for r in records
        if r.cell.measure in ("retrieval", "vqa", "reasoning", "entailment") and r.status is Status.OK
    ]
    found = []
    if trained:
        sizes = listed(sorted({r.cell.size for r in trained}))
        data = listed(sorted({r.cell.data for r in trained}))
        budgets = listed([f"{b:,}" for b in sorted({r.cell.budget or 0 for r in trained}) if b])
        seeds = len({r.cell.seed for r in trained})
        made = "generated scenes" if data == "scenes" else f"the data set {data}"
        steps = f" for {budgets} steps" if budgets else ""
        text = (
            f"The accuracies are of {sizes} models trained from scratch{steps} on {made}, {counted(seeds, 'seed')} "
            "each. They compare designs under one small budget and say nothing about pre-trained models or photos. "
        )
        once = (
            "With one seed an interval covers the draw of the test items, not what another training run would give: "
            "no claim beyond that is made."
        )
        text += once if seeds == 1 else "Their intervals are over seeds."
        found.append(text)
    costs = sorted({r.cell.size for r in records if r.cell.measure in ("flops", "latency", "train_step")})
    if costs and trained:
        found.append(f"Costs are of {listed(costs)} models with random weights, which is enough for time and memory.")
    flagged = [r for r in records if r.flags]
    if flagged:
        kinds = Counter(name for r in flagged for name in {flag.partition(":")[0] for flag in r.flags})
        often = listed([f"{name} ({count})" for name, count in sorted(kinds.items(), key=lambda k: (-k[1], k[0]))[:3]])
        found.append(f"{len(flagged)} of {counted(len(records), 'record')} carry a quality flag, mostly: {often}.")
    if len({r.env.id for r in records}) > 1:
        found.append("The records come from several environments. Timings and memory are compared within one only.")
    return found


def findings(board: Board, *, everywhere: bool = True) -> list[Finding]:
    """The main results of one environment; without ``everywhere`` only those that depend on it."""
    makers: tuple[Callable[[Board], list[Finding]], ...] = (momentum, work, speed, search, retrieval, questions)
    return [finding for make in (makers if everywhere else (momentum, speed)) for finding in make(board)]


def momentum(board: Board) -> list[Finding]:
    """What the momentum states cost in training, as ratios to ``off`` of the same recipe."""
    column, found = board.column("step"), []
    if column is None:
        return []
    fields = dict(column.setting)
    for off in [row for row in board.rows if row.momentum == "off" and board.value(row, "step")]:
        said, used = [], []
        for state, words in (("distill", "with momentum distillation"), ("queue", "with the momentum queue alone")):
            over = replace(off, momentum=state)
            one = timing_ratio(board, over, off, "step")
            if one:
                rest = [f"{ratio} the {what}" for ratio, what in _more_ratios(board, over, off)]
                said.append(f"{words} it costs {listed([f'{ratio_words(one[0])} the time', *rest])}")
                used += one[1]
        if said:
            step = (
                f"{off.plain_title}'s training step ({fields['size']}, batch {fields['batch']}) against the one without"
            )
            text = f"{step}: {'; '.join(said)}."
            found.append(Finding(lead="Momentum", text=text, records=tuple(dict.fromkeys(used))))
    return found[:MOST]


def _more_ratios(board: Board, over: Row, under: Row) -> list[tuple[str, str]]:
    """What else a momentum state multiplies in training, where both were measured apart."""
    found = []
    for name, what in (("flops_forward_backward", "FLOPs"), ("memory_training", "peak memory")):
        a, b = (board.in_training(row, name) for row in (over, under))
        if a and b:
            found.append((times(a.value / b.value), what))
    return found


def timing_ratio(board: Board, over: Row, under: Row, name: str) -> tuple[Estimate, list[str]] | None:
    """Ratio of two timings of this board with the records behind it; None where one is missing."""
    a, b = board.get(over, name), board.get(under, name)
    if a is None or b is None or name not in a.estimates or name not in b.estimates:
        return None
    samples = [m.first.samples[name].values for m in (a, b)]
    rounds = [m.detail("rounds") or () for m in (a, b)]
    return stats.ratio(samples[0], samples[1], rounds[0], rounds[1]), [a.first.id, b.first.id]


def ratio_words(one: Estimate) -> str:
    """``1.31× (1.28–1.35)``; an interval on both sides of 1 is said to include it."""
    if one.interval is None:
        return times(one.value)
    low, high = (times(end).removesuffix("×") for end in one.interval)
    return f"{times(one.value)} ({low}–{high}{'' if stats.apart(one, 1) else ', includes 1'})"


def _once(board: Board, name: str) -> list[tuple[Row, Measured, float]]:
    """Rows with a value, that of the detector included where there is one, each measurement once, lowest first."""
    seen: dict[str, tuple[Row, Measured, float]] = {}
    for row in board.rows:
        found = board.get(row, name)
        if found and name in found.estimates:
            whole = board.detected(row, name) or found.estimates[name]
            seen.setdefault(found.first.id, (row, found, whole.value))
    return sorted(seen.values(), key=lambda entry: entry[2])


def _named(board: Board, row: Row, name: str) -> str:
    return f"{row.plain_title} with its detector" if board.detected(row, name) else row.plain_title


def work(board: Board) -> list[Finding]:
    """FLOPs of a pair, lowest against the others."""
    found = _once(board, "flops_forward")
    if len(found) < 2:
        return []
    row, least, value = found[0]
    unit = scale("FLOP", [value])
    # An inference has no momentum: an architecture's states count alike and are named once.
    rest = list(dict.fromkeys(f"{_named(board, r, 'flops_forward')} {times(v / value)}" for r, _, v in found[1:]))
    text = f"Per image-text pair {row.plain_title} does the least work, {unit.full(value)}; {ranked(rest)} as much."
    return [Finding(lead="FLOPs", text=text, records=tuple(m.first.id for _, m, _ in found) or (least.first.id,))]


def speed(board: Board) -> list[Finding]:
    """Latency of a pair, the fastest against the others."""
    found = _once(board, "latency")
    column = board.column("latency")
    if len(found) < 2 or column is None:
        return []
    row, _, value = found[0]
    rest = []
    for other, _, slower in found[1:]:
        detected = board.detected(other, "latency") or board.detected(row, "latency")
        one = None if detected else timing_ratio(board, other, row, "latency")
        ratio = ratio_words(one[0]) if one else times(slower / value)
        rest.append(f"{_named(board, other, 'latency')} takes {ratio} as long")
    batch = dict(column.setting)["batch"]
    text = f"{row.plain_title} has the lowest median, {column.scale.full(value)} at batch {batch}; {ranked(rest)}."
    return [Finding(lead="Latency", text=text, records=tuple(m.first.id for _, m, _ in found))]


def search(board: Board) -> list[Finding]:
    """Predicted cost of searching a gallery of a paper's size."""
    images = min(gallery.GALLERIES)
    found = sorted(gallery.searches(board), key=lambda s: s.flops(images))
    if len(found) < 2:
        return []
    least = found[0].flops(images)
    rest = [f"{s.title} {times(s.flops(images) / least)}" for s in found[1:]]
    text = (
        f"Searching {images:,} images × {images * gallery.TEXTS_PER_IMAGE:,} texts both ways, predicted from the FLOPs "
        f"of the stages: {found[0].title} {scale('FLOP', [least]).full(least)}; {ranked(rest)} that."
    )
    return [Finding(lead="Search", text=text, records=tuple(dict.fromkeys(s.measured.first.id for s in found)))]


def retrieval(board: Board) -> list[Finding]:
    """Mean recall, best first, and which are told apart."""
    return _ranked(board, "recall_mean", "Retrieval", "mean recall")


def _ranked(board: Board, name: str, lead: str, words: str) -> list[Finding]:
    column = board.column(name)
    found = _once(board, name)[::-1]
    if column is None or len(found) < 2:
        return []
    parts = []
    for row, m, value in found:
        ends = m.estimates[name].interval
        span = f" ({ends[0]:.1f}–{ends[1]:.1f})" if ends else ""
        by = f" by {m.scorer}" if m.scorer else ""
        parts.append(f"{(row if m.row.arch == row.arch else m.row).title} {value:.1f}{span}{by}")
    sizes = details.gallery_size(found[0][1].first.detail)
    of = f", {sizes[0]:,} images × {sizes[1]:,} texts" if sizes else ""
    text = f"In {words} (%, {column.size} models, {dict(column.setting)['data']}{of}): {ranked(parts)}."
    ends = [m.estimates[name].interval for _, m, _ in found[:2]]
    if ends[0] and ends[1] and ends[0][0] <= ends[1][1]:
        text += " The intervals of the first two overlap."
    base = details.majority(found[0][1].first.detail)
    text += f" The commonest answer to each type of question would reach {base:.1f}." if base is not None else ""
    return [Finding(lead=lead, text=text, records=tuple(m.first.id for _, m, _ in found))]


def questions(board: Board) -> list[Finding]:
    """VQA in all, and the widest gap on binding questions."""
    found = _ranked(board, "vqa_accuracy", "VQA", "accuracy on all questions")
    ranked = _once(board, "vqa_binding")
    if len(ranked) < 2:
        return found
    (low, low_m, _), (high, high_m, _) = ranked[0], ranked[-1]
    gap = stats.rate_difference(high_m.estimates["vqa_binding"], low_m.estimates["vqa_binding"])
    span = f" ({gap.interval[0]:.1f} to {gap.interval[1]:.1f})" if gap.interval else ""
    doubt = " That is not told apart from none." if gap.interval and not stats.apart(gap, 0) else ""
    names = [(m.row if m.row.arch != row.arch else row).title for row, m in ((high, high_m), (low, low_m))]
    text = (
        f"On questions that need an attribute bound to the right object {names[0]} is {gap.value:.1f} points{span} "
        f"above {names[1]}.{doubt}"
    )
    return [*found, Finding(lead="Binding", text=text, records=(high_m.first.id, low_m.first.id))]
