"""Retrieval by weights that somebody brought, beside what was published of the same system under the same protocol."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vlpbench.reports.measured import Measured
from vlpbench.reports.table import Head, Item, Table, row_item

FILE = Path(__file__).with_name("published_retrieval.toml")
IMAGES = {"coco": 5_000, "flickr30k": 1_000}
"""Pictures of the galleries that published numbers are of."""
TUNED = {
    "zero_shot": "zero-shot",
    "zero_shot_coco_tuned": "zero-shot, fine-tuned on COCO",
    "finetuned": "fine-tuned",
}
"""What weights were fine-tuned for, in words; what is published calls both of the first zero-shot."""
RANKS = (1, 5, 10)
WAYS = ("tr", "ir")


@dataclass(frozen=True, kw_only=True)
class PublishedRetrieval:
    """One row of a published table."""

    arch: str
    variant: str
    data: str
    protocol: str
    pretrained: str = ""
    table: str
    source: str = ""
    confidence: str
    tr: tuple[float, ...]
    ir: tuple[float, ...]

    @property
    def words(self) -> str:
        """Which of the system's numbers these are."""
        mark = "" if self.confidence == "seen" else ", from memory"
        return f"{self.variant}; pre-trained on {self.pretrained or 'what the paper says'} ({self.table}{mark})"


@cache
def published() -> tuple[PublishedRetrieval, ...]:
    """All rows that come with the package."""
    rows = tomllib.loads(FILE.read_text(encoding="utf-8"))["row"]
    return tuple(PublishedRetrieval(**row | {way: tuple(row[way]) for way in WAYS}) for row in rows)


def beside_table(everything: Sequence[Measured]) -> Table | None:
    """A row for each measured retrieval and each published row of its protocol; None where no weights were brought."""
    rows = []
    for m in everything:
        protocol: Any = m.detail("protocol")
        if m.measure == "retrieval" and m.ok and isinstance(protocol, dict) and protocol.get("weights"):
            rows += [_row(m, protocol, one) for one in _alike(m, protocol) or (None,)]
    if not rows:
        return None
    heads = [Head(title=title) for title in ("Variant", "Weights", "Data", "Protocol", "Published")]
    for way in WAYS:
        titles = (f"{way.upper()} R@{rank}" for rank in RANKS)
        heads += [Head(title=title, unit="%", note="%", better="higher", numeric=True) for title in titles]
    return Table(
        name="published-retrieval",
        title="Retrieval beside published numbers",
        caption="Small print: the published number, and measured minus published. No difference is given where the "
        "gallery is not that of the published numbers (5,000 pictures of COCO, 1,000 of Flickr30k).",
        heads=tuple(heads),
        rows=tuple(rows),
    )


def _alike(m: Measured, protocol: dict[str, Any]) -> tuple[PublishedRetrieval, ...]:
    kind = "finetuned" if protocol.get("tuned") == "finetuned" else "zero_shot"
    cell = m.first.cell
    wanted = (cell.arch.partition("+")[0], cell.data, kind)
    return tuple(one for one in published() if (one.arch, one.data, one.protocol) == wanted)


def _row(m: Measured, protocol: dict[str, Any], one: PublishedRetrieval | None) -> tuple[Item, ...]:
    cell = m.first.cell
    same = protocol.get("images") == IMAGES.get(cell.data)
    how = [TUNED.get(protocol.get("tuned") or "", "fine-tuning not said"), f"scored by {protocol.get('scorer')}"]
    how += [f"k {protocol['k']}"] if protocol.get("k") else []
    how += [f"{protocol['image'][0]} px", f"{protocol['text_len']} tokens"]
    items = [
        row_item(m.row),
        Item(text=str(protocol["weights"])),
        Item(text=f"{cell.data}, {protocol.get('images'):,} × {protocol.get('texts'):,}"),
        Item(text="; ".join(how)),
        Item(text=one.words if one else "nothing under this protocol"),
    ]
    for way in WAYS:
        theirs = getattr(one, way) if one else ()
        for place, rank in enumerate(RANKS):
            items.append(_number(m, f"{way}_r{rank}", theirs[place] if place < len(theirs) else None, same=same))
    return tuple(items)


def _number(m: Measured, quantity: str, theirs: float | None, *, same: bool) -> Item:
    ours = m.estimates[quantity].value
    note = "" if theirs is None else f"{theirs:.1f}, {ours - theirs:+.1f}" if same else f"{theirs:.1f}"
    return Item(text=f"{ours:.1f}", note=note, value=ours, record=m.first.id)
