"""A model's structure as a drawing, from its record alone: towers as stacks of layers, as wide as their states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from vlpbench.reports import plots
from vlpbench.reports.names import arch_title
from vlpbench.reports.outline import Outline, Tower
from vlpbench.reports.summary import counted, listed
from vlpbench.reports.svg import FAINT, FONT, INK, PAPER, Figure, colour
from vlpbench.reports.table import Item
from vlpbench.reports.units import number, scale

WIDE = 389.0
"""As wide as every other figure, so that words are of one size."""
LAYER, LEAST, MOST = 6.0, 40.0, 300.0
"""Height of a layer; of a tower that must hold two lines of words; and the most that one takes."""
STRIPE = 3.0
"""Height of a layer below which a tower is one colour."""
LEFT, RIGHT, MIDDLE = 84.0, WIDE - 84.0, WIDE / 2
SIDE, CENTRE = 150.0, 210.0
"""Width of the widest tower at a side and in the middle."""
GAP = 46.0
"""From the top of a tower to what it feeds."""
TITLES = {"image": "image", "text": "text", "fusion": "fusion", "decoder": "decoder"}


@dataclass(frozen=True, kw_only=True)
class Box:
    """A tower in its place: middle of its top edge, width and height."""

    tower: Tower
    x: float
    top: float
    width: float
    height: float


def diagram(one: Outline, name: str) -> Figure:
    """The drawing, in words too, and the numbers as a table."""
    arch, title = one.record.cell.arch, arch_title(one.record.cell.arch)
    return Figure(
        name=name,
        title=f"Structure of {title}, {one.record.cell.size}",
        alt=f"{title}: {'; '.join(_sentences(one))}.",
        caption=_caption(one),
        drawing=_drawing(one, name, colour(arch)),
        table=plots.figure_table(
            name,
            f"Structure of {title}",
            ("Tower", "Layers", "Width", "Parameters read", "Passes in a step", "of the copy"),
            [_row(one, tower) for tower in one.towers.values()],
            1,
        ),
    )


def _row(one: Outline, tower: Tower) -> tuple[Item, ...]:
    record = one.record.id

    def count(value: float, text: str = "") -> Item:
        return Item(text=text or f"{value:,g}", value=value, record=record)

    passes = [found.get(tower.name, 0.0) for found in (one.passes, one.momentum)]
    return (
        Item(text=TITLES[tower.name], kind="head", family=one.record.cell.arch),
        Item(text="–", kind="absent") if tower.uncounted else count(tower.layers),
        count(tower.width),
        count(tower.params, _params(tower.params)),
        *(count(p, number(p)) if p else Item(text="–", kind="absent") for p in passes),
    )


def _sentences(one: Outline) -> list[str]:
    counted_towers = [t for t in one.towers.values() if not t.uncounted]
    said = [f"{t.name} {counted(t.layers, 'layer')} of width {t.width}" for t in counted_towers]
    said.append(f"{one.image_tokens} {'regions' if one.regions else 'image tokens'} and {one.text_tokens} text tokens")
    said += [f"{_joined(one)}"] if "fusion" in one.towers else []
    return said + (["images and texts meet in a dot product"] if one.embeds else [])


def _joined(one: Outline) -> str:
    if one.cross:
        return f"text attends to the image in {counted(one.cross, 'layer')}"
    return f"joint attention over {one.image_tokens + one.text_tokens} tokens"


def _caption(one: Outline) -> str:
    said = ["Read off the built model. A stripe is a layer; width is that of its states."]
    if one.experts:
        said.append(f"In {counted(one.experts, 'layer')} images and texts have weights of their own.")
    others = {k: v for k, v in one.shared.items() if k != "image+text"}
    if others:
        pairs = [f"{' and '.join(k.split('+'))} {_params(v)}" for k, v in others.items()]
        said.append(f"Weights that two parts share: {listed(pairs)}.")
    if one.momentum:
        said.append("Dashed behind: the momentum copy, moved after every step and never by a gradient.")
    if one.passes:
        own = [f"{name} {number(count)}" for name, count in one.passes.items()]
        copy = [f"{name} {number(count)}" for name, count in one.momentum.items()]
        extra = f", of the copy {listed(copy)}" if copy else ""
        said.append(f"Forward passes of a batch in one training step: {listed(own)}{extra}.")
    return " ".join([*said, *(f"{note[0].upper()}{note[1:].rstrip('.')}." for note in one.notes if note)])


def _params(value: float) -> str:
    return scale("1", [value]).full(value)


def _drawing(one: Outline, name: str, hue: str) -> str:
    boxes, height = _places(one)
    parts = [_ghost(box, hue) for key, box in boxes.items() if one.momentum.get(key)]
    parts += [_tower(box, hue) for box in boxes.values()]
    parts += _inputs(one, boxes, height)
    parts += _links(one, boxes, hue)
    ends = f'<defs><marker id="{name}-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" '
    ends += f'orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" fill="{FAINT}"/></marker></defs>'
    body = "".join([ends, *parts]).replace("#TIP", f"#{name}-tip")
    frame = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE:g} {height:g}"'
    return f'<svg {frame} font-family="{escape(FONT)}">{body}</svg>'


def _places(one: Outline) -> tuple[dict[str, Box], float]:
    """Boxes from the top down: decoder, fusion, image and text side by side."""
    most = max((tower.width for tower in one.towers.values()), default=1) or 1
    found: dict[str, Box] = {}
    top = 12.0
    for name in ("decoder", "fusion"):
        if tower := one.towers.get(name):
            width = _width(tower, most, CENTRE)
            found[name] = Box(tower=tower, x=MIDDLE, top=top, width=width, height=_height(tower))
            top += _height(tower) + (24.0 if name == "decoder" else GAP)
    top += 26.0 if one.embeds else 0.0
    sides = [one.towers[name] for name in ("image", "text") if name in one.towers]
    base = top + max((_height(tower) for tower in sides), default=LEAST)
    for tower, x in zip(sides, (LEFT, RIGHT), strict=False):
        height = _height(tower)
        found[tower.name] = Box(tower=tower, x=x, top=base - height, width=_width(tower, most, SIDE), height=height)
    return found, base + 44.0


def _height(tower: Tower) -> float:
    return min(MOST, max(LEAST, LAYER * tower.layers))


def _width(tower: Tower, most: int, room: float) -> float:
    return room * (0.62 + 0.38 * tower.width / most)


def _tower(box: Box, hue: str) -> str:
    x, tower = box.x - box.width / 2, box.tower
    edge = "" if tower.layers or tower.uncounted else ' stroke-dasharray="4 3"'
    parts = [_rect(x, box.top, box.width, box.height, f'fill="{PAPER}" stroke="{hue}" stroke-width="1.4"{edge}')]
    step = box.height / max(tower.layers, 1)
    if step >= STRIPE:
        stripes = [box.top + step * i for i in range(tower.layers)]
        parts += [_rect(x + 2, y + 1, box.width - 4, step - 2, f'fill="{hue}" opacity="0.2"', 1.5) for y in stripes]
    else:
        parts.append(_rect(x + 2, box.top + 2, box.width - 4, box.height - 4, f'fill="{hue}" opacity="0.16"', 2))
    middle = box.top + box.height / 2
    what = counted(tower.layers, "layer") if tower.layers else "no layers"
    rest = f"{what} · {tower.width}" if tower.width else what
    rest = f"{tower.width}" if tower.uncounted else rest
    parts += [_text(box.x, middle - 4, TITLES[tower.name], weight=650), _text(box.x, middle + 10, rest, size=9.5)]
    return "".join(parts)


def _ghost(box: Box, hue: str) -> str:
    look = f'fill="none" stroke="{hue}" stroke-width="1.1" stroke-dasharray="4 3"'
    return _rect(box.x - box.width / 2 + 6, box.top - 6, box.width, box.height, look)


def _inputs(one: Outline, boxes: dict[str, Box], height: float) -> list[str]:
    words = {
        "image": f"{one.image_tokens} {'regions' if one.regions else 'tokens'}",
        "text": f"{one.text_tokens} tokens",
    }
    found = []
    for name, word in words.items():
        if box := boxes.get(name):
            found.append(_arrow(box.x, height - 18, box.x, box.top + box.height + 2))
            found.append(_text(box.x, height - 6, f"{name}, {word}", size=10))
    fusion = boxes.get("fusion")
    if fusion and "image" in boxes and "text" not in boxes and one.text_tokens:  # words enter where pairs are fused
        foot, x = fusion.top + fusion.height, MIDDLE + fusion.width / 2 - 14
        found.append(_path([(RIGHT, height - 18), (RIGHT, foot + 16), (x, foot + 16), (x, foot + 2)]))
        found.append(_text(RIGHT, height - 6, f"text, {words['text']}", size=10))
    return found


def _links(one: Outline, boxes: dict[str, Box], hue: str) -> list[str]:
    found = []
    image, text, fusion, decoder = (boxes.get(name) for name in ("image", "text", "fusion", "decoder"))
    if image and text and one.embeds:
        y = min(image.top, text.top) - 20
        for box in (image, text):
            side = 1 if box.x < MIDDLE else -1
            found.append(_path([(box.x, box.top - 2), (box.x, y), (MIDDLE - side * 42, y)]))
        found.append(_rect(MIDDLE - 40, y - 10, 80, 20, f'fill="{PAPER}" stroke="{hue}" stroke-width="1.2"', 10))
        found.append(_text(MIDDLE, y + 3.5, "dot product", size=10))
    if fusion:
        foot = fusion.top + fusion.height + 2
        for box in filter(None, (image, text)):
            reach = min(fusion.width / 2 - 14, abs(box.x - MIDDLE))
            x = MIDDLE + (reach if box.x > MIDDLE else -reach)
            start = min(image.top, text.top) - 20 if one.embeds and image and text else box.top - 2
            found.append(_path([(box.x, start), (box.x, foot + 14), (x, foot + 14), (x, foot)]))
        word = f"cross-attention in {counted(one.cross, 'layer')}" if one.cross else _joined(one)
        found.append(_text(MIDDLE, foot + 28, word, size=9.5))
    if decoder and fusion and not one.own_decoder:
        found.append(_text(MIDDLE, decoder.top + decoder.height + 15, "same weights as fusion", size=9.5))
    if one.shared.get("image+text") and image and text:
        y = image.top + image.height - 14
        left, right = image.x + image.width / 2, text.x - text.width / 2
        found.append(_line(left, y, right, y, f'stroke="{hue}" stroke-dasharray="3 3"'))
        found.append(_text(MIDDLE, y - 4, _params(one.shared["image+text"]), size=9.5))
        found.append(_text(MIDDLE, y + 12, "shared", size=9.5))
    return found


def _rect(x: float, y: float, width: float, height: float, look: str, round_: float = 4) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{round_:g}" {look}/>'


def _line(x1: float, y1: float, x2: float, y2: float, look: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {look}/>'


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return _path([(x1, y1), (x2, y2)])


def _path(points: Sequence[tuple[float, float]]) -> str:
    way = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{way}" fill="none" stroke="{FAINT}" stroke-width="1.2" marker-end="url(#TIP)"/>'


def _text(x: float, y: float, words: str, *, size: float = 11, weight: int = 400) -> str:
    look = f'font-size="{size:g}" font-weight="{weight}" text-anchor="middle" fill="{INK}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(words)}</text>'
