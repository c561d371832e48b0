"""Objectives by name, with what each needs of a model. Read at plan time, so it imports no torch and no objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlpbench.archs.registry import ArchSpec, UnknownName, nearest
from vlpbench.archs.types import Can

MOMENTUM = ("off", "queue", "distill")
"""``off``: no second model, in-batch negatives. ``queue``: momentum model and queue as negatives, no soft targets.
``distill``: queue, and soft targets on the objectives that can be distilled (ALBEF, sections 3.2 and 3.3)."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """One line of the table below."""

    name: str
    title: str
    target: str
    needs: Can
    distillable: bool
    """Whether a momentum teacher can soften its targets."""
    queued: bool = False
    """Whether a momentum queue can widen its negatives."""
    only: tuple[str, ...] = ()
    """Architectures whose parts it reads; empty means all that are capable."""


def _o(
    name: str,
    cls: str,
    title: str,
    needs: Can,
    *,
    distillable: bool = False,
    queued: bool = False,
    module: str = "",
    only: str = "",
) -> ObjectiveSpec:
    return ObjectiveSpec(
        name=name,
        title=title,
        target=f"vlpbench.archs.objectives.{module or name}:{cls}",
        needs=needs,
        distillable=distillable,
        queued=queued,
        only=tuple(only.split()),
    )


OBJECTIVES: dict[str, ObjectiveSpec] = {
    spec.name: spec
    for spec in (
        _o("itc", "ITC", "image-text contrast", Can.EMBED, distillable=True, queued=True),
        _o("itc_vl", "ITCVL", "image-text contrast, experts for pairs as well", Can.EMBED | Can.FUSE, only="vlmo"),
        _o("itm", "ITM", "image-text matching", Can.FUSE),
        _o("wpa", "WPA", "word-patch alignment", Can.FUSE, only="vilt uniter"),
        _o("mpp", "MPP", "masked patch prediction", Can.FUSE, only="vilt"),
        _o("mlm", "MLM", "masked language modelling", Can.FUSE | Can.MASK, distillable=True),
        _o("lm", "LM", "language modelling", Can.DECODE),
        _o("triplet", "Triplet", "triplet, hardest negatives", Can.EMBED),
        _o("triplet_sum", "TripletSum", "triplet, all negatives", Can.EMBED, module="triplet"),
    )
}


def spec(name: str) -> ObjectiveSpec:
    """Raises `UnknownName` with the nearest objective."""
    if name not in OBJECTIVES:
        raise UnknownName(nearest("objective", name, list(OBJECTIVES)))
    return OBJECTIVES[name]


def impossible(arch: ArchSpec, objectives: Sequence[str], momentum: str, distilled: Sequence[str] = ()) -> str | None:
    """Why this combination cannot be trained, in one sentence; None if it can.

    Raises:
        UnknownName: for an objective or momentum state that does not exist.
    """
    if momentum not in MOMENTUM:
        raise UnknownName(nearest("momentum state", momentum, list(MOMENTUM)))
    if not objectives:
        return "no objective is named, so there is nothing to train"
    chosen = [spec(name) for name in objectives]
    for objective in chosen:
        missing = objective.needs & ~arch.can
        if missing:
            return f"{objective.name} needs {' and '.join(missing.names())}, which {arch.name} lacks"
        if objective.only and arch.name not in objective.only:
            return f"{objective.name} is for {' and '.join(objective.only)}; {arch.name} has not the parts it reads"
    if momentum == "queue" and not any(o.queued for o in chosen):
        return f"momentum 'queue' serves contrastive negatives, and {', '.join(objectives)} has none"
    if momentum == "distill" and not any(o.distillable for o in chosen):
        return f"momentum 'distill' softens targets, and none of {', '.join(objectives)} can be softened"
    return undistilled(objectives, momentum, distilled)


def undistilled(objectives: Sequence[str], momentum: str, distilled: Sequence[str]) -> str | None:
    """Why the targets of ``distilled`` cannot be the ones that are softened, in one sentence; None if they can."""
    if distilled and momentum != "distill":
        return f"distilled {', '.join(distilled)} needs momentum 'distill', and it is {momentum!r}"
    for name in distilled:
        if name not in objectives:
            return f"distilled {name} is not among the objectives {', '.join(objectives)}"
        if not spec(name).distillable:
            return f"distilled {name} has no targets that can be softened"
    return None
