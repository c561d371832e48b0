"""Tables that look into the accuracies: every gallery and scorer, swapped words, every split and kind of row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vlpbench.reports import details, paired, stats
from vlpbench.reports.board import quantity
from vlpbench.reports.measured import RECALLS, Measured, kind_estimate
from vlpbench.reports.retrieval_beside import beside_table
from vlpbench.reports.stats import Estimate
from vlpbench.reports.table import Head, Item, Table, row_item, scorer_words, value_item
from vlpbench.reports.units import PERCENT

RATES = (*RECALLS, "recall_mean")


def accuracy_tables(everything: Sequence[Measured]) -> list[Table]:
    """Those that the records hold something for."""
    found = (
        scorer_table(everything),
        beside_table(everything),
        swap_table(everything),
        question_table(everything),
        statement_table(everything),
        hypothesis_table(everything),
        paired_table(everything),
    )
    return [table for table in found if table is not None]


def scorer_table(everything: Sequence[Measured]) -> Table | None:
    """All recalls of every variant, by every scorer, on every gallery; None without any retrieval."""
    found = _in_order(m for m in everything if m.scorer and m.ok and set(RATES) & set(m.estimates))
    rows = []
    for m in found:
        mine = [_recall_item(m, name) for name in RATES]
        rows.append((*_retrieval_words(m, details.MAIN), *mine))
        for gallery in details.other_galleries(m.first.detail):
            rates = details.recalls(m.first.detail, gallery)
            others = [_rate_item(m, rates.get(name)) for name in RECALLS]
            mean = sum(p for p, _ in rates.values()) / len(rates) if len(rates) == len(RECALLS) else None
            whole = Item(text=f"{mean:.1f}", value=mean, record=m.first.id) if mean is not None else _absent()
            rows.append((*_retrieval_words(m, gallery), *others, whole))
    heads = [Head(title=t) for t in ("Variant", "Scored by", "Model, data", "Gallery", "Images × texts")]
    heads += [_percent(quantity(name).title) for name in RATES]
    caption = "Text retrieval (TR) finds a text for an image, image retrieval (IR) an image for a text."
    return _table("retrieval", "Retrieval by scorer and gallery", caption, heads, rows)


def _retrieval_words(m: Measured, gallery: str) -> list[Item]:
    size = details.gallery_size(m.first.detail, gallery)
    shown = f"{size[0]:,} × {size[1]:,}" if size else ""
    return [row_item(m.row), *(Item(text=text) for text in (scorer_words(m), _what(m), gallery, shown))]


def _recall_item(m: Measured, name: str) -> Item:
    return value_item(m.estimates[name], PERCENT, m) if name in m.estimates else _absent()


def swap_table(everything: Sequence[Measured]) -> Table | None:
    """How often a true text beats one with two words swapped; None where nothing was swapped."""
    found = [(m, rates) for m in _in_order(m for m in everything if m.ok) if (rates := details.swaps(m.first.detail))]
    kinds = list(dict.fromkeys(kind for _, rates in found for kind in rates))
    rows = [
        (
            row_item(m.row),
            Item(text=scorer_words(m)),
            Item(text=_what(m)),
            *(_rate_item(m, rates.get(kind)) for kind in kinds),
        )
        for m, rates in found
    ]
    heads = [Head(title=title) for title in ("Variant", "Scored by", "Model, data")]
    heads += [_percent(f"Swapped {kind}") for kind in kinds]
    caption = (
        "Share of images whose true text scores above the same text with two words swapped. Guessing reaches 50 %, and "
        "a model that sees only which words occur does no better."
    )
    return _table("swaps", "Swapped words", caption, heads, rows)


def question_table(everything: Sequence[Measured]) -> Table | None:
    """VQA accuracy by split and by type of question; None without any."""
    return _split_table(everything, "vqa", "questions", "VQA by split and type of question", "type of question")


def statement_table(everything: Sequence[Measured]) -> Table | None:
    """Accuracy of visual reasoning by split, kind of statement and right label; None without any."""
    title = "Visual reasoning by split and kind of statement"
    return _split_table(everything, "reasoning", "statements", title, "kind of statement")


def hypothesis_table(everything: Sequence[Measured]) -> Table | None:
    """Accuracy of visual entailment by split, kind of hypothesis and right label; None without any."""
    title = "Visual entailment by split and kind of hypothesis"
    return _split_table(everything, "entailment", "hypotheses", title, "kind of hypothesis")


def paired_table(everything: Sequence[Measured]) -> Table | None:
    """Every two variants over the same test items; None where no two met the same."""
    rows = [
        (
            row_item(c.a.row),
            row_item(c.b.row),
            Item(text=f"{scorer_words(c.a)} / {scorer_words(c.b)}" if c.a.scorer else ""),
            Item(text=_what(c.a)),
            Item(text=f"{c.seed}"),
            Item(text=c.what if c.a.scorer else f"{c.a.measure} {c.what}"),
            value_item(c.difference, PERCENT, c.a),
            Item(text=f"{c.only_a} / {c.only_b}"),
            Item(text=f"{c.p:.3f}" if c.p >= 0.001 else "< 0.001", value=c.p, record=c.records[1].id),
            Item(text=c.verdict),
        )
        for c in paired.comparisons(everything)
    ]
    titles = ("Variant A", "Variant B", "Scored by", "Model, data", "Seed", "Rate")
    heads = [Head(title=title) for title in titles]
    heads += [Head(title="A - B", unit="%", note="points", numeric=True), Head(title="Right: only A / only B")]
    heads += [Head(title="p", numeric=True), Head(title="Over these items")]
    caption = (
        "Two trained models on the same test items: McNemar's test (exact), and the difference with a paired bootstrap "
        "interval over items. Two sources of variance are apart: this is the choice of items, for one seed each. What "
        "another training seed would bring is not in it, and stands in the tables above where there are several. With "
        "many rows some fall below 5 % by chance."
    )
    return _table("paired", "Differences over the same test items", caption, heads, rows)


def _split_table(everything: Sequence[Measured], measure: str, name: str, title: str, kind: str) -> Table | None:
    found = _in_order(m for m in everything if m.ok and m.measure == measure)
    kinds = list(dict.fromkeys(kind for m in found for kind in details.kinds(m.first.detail)))
    classes = list(dict.fromkeys(label for m in found for label in details.classes(m.first.detail)))
    rows = [_split_row(m, split, kinds, classes) for m in found for split in details.splits(m.first.detail)]
    heads = [Head(title=title) for title in ("Variant", "Model, data", "Split")]
    heads += [_percent("All"), *(_percent(kind) for kind in (*kinds, *classes)), _percent("Commonest answers")]
    caption = f"What always giving the commonest answer to each {kind} reaches stands in the last column."
    return _table(name, title, caption, heads, rows)


def _split_row(m: Measured, split: str, kinds: Sequence[str], classes: Sequence[str]) -> list[Item]:
    detail = m.first.detail
    rates, labels = details.kinds(detail, split), details.classes(detail, split)
    main = split == details.MAIN
    whole = m.estimates.get(f"{m.measure}_accuracy") if main else None
    by_kind = [kind_estimate(m, kind) if main else None for kind in kinds]
    base = details.majority(detail, split)
    return [
        row_item(m.row),
        Item(text=_what(m)),
        Item(text=split),
        value_item(whole, PERCENT, m) if whole else _rate_item(m, details.split_accuracy(detail, split)),
        *(
            value_item(known, PERCENT, m) if known else _rate_item(m, rates.get(kind))
            for kind, known in zip(kinds, by_kind, strict=True)
        ),
        *(_rate_item(m, labels.get(label)) for label in classes),
        Item(text=f"{base:.1f}", value=base, record=m.first.id) if base is not None else _absent(),
    ]


def _rate_item(m: Measured, rate: tuple[float, int] | None) -> Item:
    """A rate of the first record; of one seed only, where there are several."""
    if rate is None:
        return _absent()
    value: Estimate = stats.rate(*rate)
    return value_item(value, PERCENT, m)


def _what(m: Measured) -> str:
    fields = dict(m.setting)
    noise = float(fields["noise"])
    return f"{fields['size']}, {fields['data']}" + (f", {noise:.0%} noise" if noise else "")


def _absent() -> Item:
    return Item(text="–", kind="absent")


def _percent(title: str) -> Head:
    return Head(title=title, unit="%", note="%", better="higher", numeric=True)


def _in_order(found: Iterable[Measured]) -> list[Measured]:
    return sorted(found, key=lambda m: (m.row.order, m.setting, m.scorer or ""))


def _table(name: str, title: str, caption: str, heads: Sequence[Head], rows: Sequence[Sequence[Item]]) -> Table | None:
    if not rows:
        return None
    return Table(name=name, title=title, caption=caption, heads=tuple(heads), rows=tuple(tuple(row) for row in rows))
