"""The sections of a report between its answer and its appendix: which figures and tables stand where, in what order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlpbench.reports import ablation_figures, ablation_words
from vlpbench.reports.ablation import Study
from vlpbench.reports.svg import Figure
from vlpbench.reports.table import Table


@dataclass(frozen=True, kw_only=True)
class Block:
    """Figures and tables under one heading."""

    heading: str = ""
    text: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    """Tables that a reader opens."""

    @property
    def empty(self) -> bool:
        """Whether it holds neither a figure nor a table."""
        return not (self.figures or self.tables or self.folded)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page with a place in its navigation."""

    name: str
    """Anchor."""
    title: str
    text: str
    blocks: tuple[Block, ...]


TEXTS: dict[str, tuple[str, str]] = {
    "tradeoff": (
        "Trade-off",
        "What a variant reaches, for what cost; and what it keeps on compositions that its training never showed.",
    ),
    "comparison": ("Comparison", "All variants side by side. Sort by a heading; a number links to its record."),
    "cost": ("Cost", "Work, time and memory of one pair and of one training step."),
    "search": (
        "Cost of retrieval",
        "A dot product encodes every image and text once; fusion runs for every pair; reranking fuses the best few.",
    ),
    "ablation": ("Ablation", "What each training objective, and each part of momentum, adds."),
    "noise": (
        "Caption noise and momentum distillation",
        "Whether soft targets help more where more captions are wrong.",
    ),
    "learning": ("Learning", "What trainings could do on the way, and how long they took to get there."),
    "accuracy": ("Accuracy in detail", "Every gallery, scorer, split and kind of question; differences item by item."),
    "architectures": (
        "Architectures",
        "What each model is made of, read off the built model, and all that was measured of it.",
    ),
}
"""Name of a section -> its title and what it is about, in the order of the page."""
COMMANDS = {
    "ablation": ("ablation of the objectives", "vlpbench ablate --arch albef"),
    "noise": ("caption noise against distillation", "vlpbench ablate --arch albef --only sweep --sweep noise"),
    "search": ("cost of retrieval", "vlpbench run paper"),
    "learning": ("learning curves", "vlpbench run quick"),
    "structure": ("structure diagrams", "vlpbench run notes --only measure=structure"),
}
"""What may be missing -> what it is called, and a command that measures it."""


def sections(
    blocks: Mapping[str, Sequence[Block]],
) -> tuple[Section, ...]:
    """Those that hold something, in the order of the page."""
    found = []
    for name, (title, text) in TEXTS.items():
        kept = tuple(block for block in blocks.get(name, ()) if not block.empty)
        if kept:
            found.append(Section(name=name, title=title, text=text, blocks=kept))
    return tuple(found)


def missing(found: Sequence[Section], diagrams: bool) -> tuple[tuple[str, str], ...]:
    """What the records hold nothing of: its name and the command that measures it."""
    there = {section.name for section in found} | ({"structure"} if diagrams else set())
    return tuple(words for name, words in COMMANDS.items() if name not in there)


def studied(found: Sequence[Study]) -> dict[str, list[Block]]:
    """Blocks of ablations: the sweep of caption noise in a section of its own."""
    blocks: dict[str, list[Block]] = {"ablation": [], "noise": []}
    for number, study in enumerate(found, 1):
        name = f"ablation-{number}"
        noise = study.kind == "sweep" and any(effect.at is not None for effect in study.effects)
        blocks["noise" if noise else "ablation"].append(
            Block(
                heading=f"{study.title}, {ablation_words.setting_words(study)}",
                figures=tuple(ablation_figures.figures(study, name)),
                tables=tuple(ablation_words.tables(study, name)),
            )
        )
    return blocks


def drawn(
    by_part: Sequence[tuple[str, Mapping[str, Sequence[Figure]]]],
    tables: Mapping[str, Sequence[Table]],
    folded: Mapping[str, Sequence[Table]],
) -> dict[str, list[Block]]:
    """Blocks of figures, one for each environment that has any; behind them the tables of the section.

    Args:
        by_part: heading of an environment, empty where there is one only, and its figures by section.
        tables: shown open, by section.
        folded: shown when opened, by section.
    """
    names = dict.fromkeys([*(name for _, figures in by_part for name in figures), *tables, *folded])
    found: dict[str, list[Block]] = {}
    for name in names:
        blocks = [Block(heading=head, figures=tuple(figures.get(name, ()))) for head, figures in by_part]
        rest = Block(tables=tuple(tables.get(name, ())), folded=tuple(folded.get(name, ())))
        found[name] = [*blocks, rest]
    return found
