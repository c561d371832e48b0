"""What records of the measure `structure` say about a model: towers, layers, tokens, shared weights, momentum copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlpbench.reports.names import MOMENTUM
from vlpbench.results.record import Record, Status

MEASURE = "structure"
TOWERS = ("image", "text", "fusion", "decoder")


@dataclass(frozen=True, kw_only=True)
class Tower:
    """One part of a model that runs by itself."""

    name: str
    layers: int
    width: int
    params: float
    """Of the weights that it reads, shared ones included."""

    @property
    def uncounted(self) -> bool:
        """Whether its layers are not told: a decoder's are seen by causal attention, which not every one calls."""
        return self.name == "decoder" and not self.layers


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A model as its record tells it."""

    record: Record
    towers: Mapping[str, Tower]
    """Those that run; a model that does not fuse has no fusion."""
    image_tokens: int
    text_tokens: int
    regions: bool
    """Whether an image comes as regions of a detector."""
    cross: int
    """Layers in which text attends to the image's states; 0 where both are one sequence."""
    can: tuple[str, ...]
    shared: Mapping[str, float]
    """``image+text`` -> parameters that both read."""
    own_decoder: float
    """Parameters that only the decoder reads."""
    experts: int
    """Layers with weights of their own for images and for texts."""
    passes: Mapping[str, float]
    """Tower -> forward passes of a batch in one training step; empty where no training was watched."""
    momentum: Mapping[str, float]
    """The same of the momentum copy; empty without one."""
    notes: tuple[str, ...]

    @property
    def embeds(self) -> bool:
        """Whether images and texts meet as vectors."""
        return "EMBED" in self.can


def outlines(records: Sequence[Record]) -> dict[str, Outline]:
    """Architecture -> its outline at the largest size, of the recipe with the most momentum."""
    found: dict[str, Record] = {}
    for record in records:
        if record.cell.measure == MEASURE and record.status is Status.OK and not record.cell.changes:
            kept = found.get(record.cell.arch)
            if kept is None or _merit(record) > _merit(kept):
                found[record.cell.arch] = record
    return {arch: one for arch, record in found.items() if (one := read(record)) is not None}


def read(record: Record) -> Outline | None:
    """The outline of one record; None where it lacks what a diagram needs."""
    detail = record.detail
    tokens, layers, towers = (_part(detail, key) for key in ("tokens", "layers", "towers"))
    if not tokens or not layers or not towers:
        return None
    steps = _part(_part(detail, "step"), "forwards")
    own = float(_part(detail, "decoder").get("own", 0))
    cross = int(_sample(record, "layers_cross"))
    made = {
        name: Tower(
            name=name,
            layers=int(layers.get(name, 0)) if name != "decoder" else _decoder_layers(towers),
            width=int(tower.get("width") or 0),
            params=float(tower.get("params") or 0),
        )
        for name in TOWERS
        if (tower := towers.get(name)) and (tower.get("params") or tower.get("attention"))
    }
    return Outline(
        record=record,
        towers=made,
        image_tokens=int(tokens.get("image") or 0),
        text_tokens=int(tokens.get("text") or 0),
        regions=tokens.get("regions") is not None,
        cross=cross,
        can=tuple(str(one).upper() for one in _words(detail.get("can"))),
        shared={str(k): float(v) for k, v in _part(detail, "shared").items()},
        own_decoder=own,
        experts=int(_part(detail, "experts").get("layers") or 0),
        passes=_passes(_part(steps, "online")),
        momentum=_passes(_part(steps, "momentum")),
        notes=tuple(str(note) for note in _words(detail.get("notes"))),
    )


def _merit(record: Record) -> tuple[int, int, str]:
    sizes = {"base": 3, "small": 1, "tiny": 0}
    return sizes.get(record.cell.size, 2), MOMENTUM.index(record.cell.momentum), record.started


def _decoder_layers(towers: Mapping[str, Any]) -> int:
    """Calls of causal attention are layers."""
    calls = _part(towers, "decoder").get("attention") or ()
    return sum(int(call.get("calls", 0)) for call in calls if call.get("causal"))


def _passes(found: Mapping[str, Any]) -> dict[str, float]:
    passes = {str(name): float(one.get("passes") or 0) for name, one in found.items() if isinstance(one, dict)}
    return {name: count for name, count in passes.items() if count}


def _sample(record: Record, name: str) -> float:
    series = record.samples.get(name)
    return series.values[0] if series and series.values else 0.0


def _part(found: Any, key: str) -> dict[str, Any]:
    part = found.get(key) if isinstance(found, dict) else None
    return part if isinstance(part, dict) else {}


def _words(found: Any) -> Sequence[Any]:
    return found if isinstance(found, (list, tuple)) else ()
