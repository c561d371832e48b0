"""Figures as SVG with real text, drawn once with stand-in colours and coloured afterwards, for a page or a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

from vlpbench.reports.names import FAMILIES, SPARE, family
from vlpbench.reports.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

FONT = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', 'PingFang SC', 'Hiragino Sans GB', "
    "'Microsoft YaHei', 'Noto Sans CJK SC', 'Noto Sans SC', sans-serif"
)
INK, FAINT, GRID, PAPER, ON = "#101018", "#5b6070", "#d8dbe2", "#fefefe", "#fffffe"
"""Stand-ins that no other colour equals: text, axes, grid, page, text on a colour."""
ROLES: dict[str, tuple[str, str, str]] = {
    INK: ("ink", "#1a1d24", "#e8eaf0"),
    FAINT: ("faint", "#5b6070", "#a3a9b8"),
    GRID: ("grid", "#dfe2e8", "#343945"),
    PAPER: ("paper", "#ffffff", "#14161b"),
    ON: ("on", "#ffffff", "#14161b"),
}
"""Stand-in -> name of the CSS variable, light value, dark value."""
WIDTH = 5.4
"""Inches; 389 units of the view box, so that 11-unit text is readable on a telephone and not coarse on a desk."""

NARROWEST = 1.9
"""Inches that axes have at least: where names leave less, the figure is wider, and its words smaller."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawing."""

    drawing: str
    """SVG with stand-in colours."""

    @property
    def inline(self) -> str:
        """For a page: colours are CSS variables, so that it follows the page from light to dark."""
        return _recoloured(self.drawing, {key: f"var(--{name})" for key, (name, _, _) in palette().items()})


@dataclass(frozen=True, kw_only=True)
class Figure(Picture):
    """A drawing, what it says in words, and the numbers behind it."""

    name: str
    title: str
    alt: str
    caption: str
    table: Table

    @property
    def standalone(self) -> str:
        """For a file: light colours on a white ground, no CSS variables."""
        drawn = _recoloured(self.drawing, {key: light for key, (_, light, _) in palette().items()})
        return re.sub(r"(<svg [^>]*>)", r'\1<rect width="100%" height="100%" fill="#ffffff"/>', drawn, count=1)


def palette() -> dict[str, tuple[str, str, str]]:
    """Every stand-in colour: those of roles, and the light colours of families standing for themselves."""
    found = dict(ROLES)
    pairs = [(f"c-{key}", one.light, one.dark) for key, one in FAMILIES.items()]
    pairs += [(f"c-spare{i}", light, dark) for i, (light, dark, _) in enumerate(SPARE)]
    return found | {light: (name, light, dark) for name, light, dark in pairs}


def colour(arch: str) -> str:
    """Stand-in for the family's colour."""
    return family(arch).light


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures; matplotlib's settings are put back afterwards."""
    import matplotlib as mpl

    look: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "vlpbench",
        "text.parse_math": False,
        "font.family": ["DejaVu Sans"],
        "font.size": 10.8,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": FAINT,
        "axes.linewidth": 0.8,
        "axes.labelcolor": FAINT,
        "axes.titlecolor": INK,
        "axes.facecolor": "none",
        "axes.axisbelow": True,
        "text.color": INK,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "xtick.labelcolor": FAINT,
        "ytick.labelcolor": INK,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "hatch.color": PAPER,
        "hatch.linewidth": 1.4,
        "lines.linewidth": 2.0,
        "lines.solid_capstyle": "round",
        "figure.facecolor": "none",
    }
    with mpl.rc_context(look):
        yield


def canvas(
    height: float,
    panels: int = 1,
    *,
    left: Sequence[str] = (),
    right: Sequence[str] = (),
    head: float = 0.1,
    foot: float = 0.3,
    gap: float = 0.5,
) -> tuple[Canvas, list[Axes]]:
    """An empty figure of the common width with panels one above another; no global state of pyplot is touched.

    Margins are set from the length of the words that go there: a reader's font is not known here, so measuring the text
    with one of ours would be no more exact, and takes most of the time of a figure.

    Args:
        height: inches.
        panels: number of axes.
        left: words left of the axes, such as names of rows.
        right: words right of them.
        head: inches above the axes.
        foot: inches below them.
        gap: inches between two panels.
    """
    from matplotlib.figure import Figure

    wide = max(WIDTH, room(left) + room(right) + NARROWEST)
    figure = Figure(figsize=(wide, height))
    edges = {
        "left": room(left) / wide,
        "right": 1 - room(right) / wide,
        "top": 1 - head / height,
        "bottom": foot / height,
    }
    one = (height - head - foot - gap * (panels - 1)) / panels
    found = figure.subplots(panels, 1, squeeze=False, gridspec_kw=edges | {"hspace": gap / one})
    return figure, [axes for row in found for axes in row]


def room(words: Sequence[str]) -> float:
    """Inches that the longest of the words takes."""
    return 0.16 + 0.078 * max((len(word) for word in words), default=0)


def draw(figure: Canvas, name: str) -> str:
    """SVG of the figure: scales with its container, takes the reader's font, and has ids that no other figure has."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = StringIO()
    FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?)width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"'DejaVu Sans'(, sans-serif)?", FONT, text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    return re.sub(r'href="#', f'href="#{name}-', text)


def _recoloured(drawing: str, colours: Mapping[str, str]) -> str:
    pattern = re.compile("|".join(re.escape(key) for key in colours), re.IGNORECASE)
    return pattern.sub(lambda match: colours[match.group().lower()], drawing)
