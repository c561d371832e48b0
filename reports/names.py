"""What things are called and coloured: each family of architectures has one title and one colour, everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

from vlpbench.results.record import Cell

LATE = "+late"
"""Suffix of an architecture that was given a late-fusion head."""
SIZES = ("large", "base", "medium", "small", "tiny")
"""Sizes that all architectures share. Any other size names a model of its own, such as ``l14``."""
MOMENTUM = ("off", "queue", "distill")


@dataclass(frozen=True, kw_only=True)
class Family:
    """An architecture with its relatives."""

    title: str
    light: str
    """Colour on a white page; at least 3:1 against it."""
    dark: str
    """Colour on a dark page."""
    marker: str
    """Shape of its points, in matplotlib's letters: eleven colours alone are more than the colour-blind tell apart."""


FAMILIES: dict[str, Family] = {
    "clip": Family(title="CLIP", light="#0072b2", dark="#5cb8f2", marker="o"),
    "vilt": Family(title="ViLT", light="#c85200", dark="#ff9e4a", marker="s"),
    "albef": Family(title="ALBEF", light="#008a64", dark="#3fd0a4", marker="D"),
    "blip": Family(title="BLIP", light="#a6457f", dark="#e79ac6", marker="^"),
    "vlmo": Family(title="VLMo", light="#5e3c99", dark="#b79ff0", marker="v"),
    "beit3": Family(title="BEiT-3", light="#007a8c", dark="#4fc7da", marker="P"),
    "coca": Family(title="CoCa", light="#7a4a00", dark="#d9a45a", marker="X"),
    "pali": Family(title="PaLI", light="#3d4a5c", dark="#a9b7cc", marker="*"),
    "uniter": Family(title="UNITER", light="#b2182b", dark="#ff8a8a", marker="<"),
    "vilbert": Family(title="ViLBERT", light="#8a7400", dark="#dcc74a", marker=">"),
    "vsepp": Family(title="VSE++", light="#6b6b6b", dark="#bdbdbd", marker="p"),
}
"""Drawn so that the three families compared most often stay apart under every common colour blindness."""

SPARE: tuple[tuple[str, str, str], ...] = (
    ("#8f3a9c", "#dd9be6", "h"),
    ("#4a6b00", "#b3d45c", "8"),
    ("#a03e00", "#f0a378", "d"),
    ("#2f4fb5", "#9fb4ff", "H"),
)
"""Colours and markers for architectures of other packages, picked by name, so that one keeps its own everywhere."""


def family_key(arch: str) -> str:
    """``clip`` for ``clip+late``."""
    return arch.partition("+")[0]


def family(arch: str) -> Family:
    """Title and colours; an unknown architecture is called by its own name."""
    key = family_key(arch)
    if key in FAMILIES:
        return FAMILIES[key]
    light, dark, marker = SPARE[crc32(key.encode()) % len(SPARE)]
    return Family(title=key, light=light, dark=dark, marker=marker)


def arch_title(arch: str) -> str:
    """``CLIP + late`` for ``clip+late``."""
    title = family(arch).title
    return f"{title} + late" if arch.endswith(LATE) else title


@dataclass(frozen=True, kw_only=True)
class Row:
    """A variant: what one line of the comparison table stands for."""

    arch: str
    momentum: str = "off"
    states: bool = False
    """Whether the architecture was measured in several momentum states, so that ``off`` is worth saying."""
    extra: tuple[tuple[str, str], ...] = ()
    """Recipe fields that tell variants of one architecture apart, where any do."""

    @property
    def title(self) -> str:
        """``ALBEF (distill)``, ``CLIP l14``, ``ALBEF (off), objectives itc+itm``."""
        size = dict(self.extra).get("size", "")
        name = f"{arch_title(self.arch)} {size}".strip()
        if self.momentum != "off" or self.states:
            name += f" ({self.momentum})"
        rest = [f"{field.replace('_', ' ')} {value}" for field, value in self.extra if field != "size"]
        return ", ".join([name, *rest])

    @property
    def plain_title(self) -> str:
        """Without the momentum state, for what the state does not change."""
        return Row(arch=self.arch, extra=tuple(e for e in self.extra if e[0] == "size")).title

    @property
    def order(self) -> tuple[int, str, int, str]:
        """Families in the order of the table above, then momentum off, queue, distill."""
        known = list(FAMILIES)
        key = family_key(self.arch)
        place = known.index(key) if key in known else len(known)
        state = MOMENTUM.index(self.momentum) if self.momentum in MOMENTUM else len(MOMENTUM)
        return place, self.arch, state, repr(self.extra)


def text_of(value: object) -> str:
    """A cell's field in words."""
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return ", ".join(f"{k}={v}" for k, v in value)
    if isinstance(value, tuple):
        return "+".join(str(item) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "default" if value is None else str(value)


def shared_size(cell: Cell) -> str:
    """The size on the common ladder; a model with a size of its own is a paper-size model."""
    return cell.size if cell.size in SIZES else "base"
