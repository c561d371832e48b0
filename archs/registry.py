"""Architectures by name. A registration is a string, so listing all of them imports none, and not even torch."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, TypeVar

from vlpbench.archs.inputs import DEFAULT, PUBLISHED, Inputs
from vlpbench.archs.types import Can, Unsupported

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from vlpbench.archs.model import VLModel

C = TypeVar("C", bound="DataclassInstance")
GROUP = "vlpbench.archs"
"""Entry-point group in which another package offers an `ArchSpec`."""
LATE = "+late"
"""Suffix that puts a late-fusion head on an architecture that only embeds."""
CROP = 16
"""Side in pixels of the cut-outs that data with boxes offers, to architectures that read regions, in place of a
detector's features."""


@dataclass(frozen=True, kw_only=True)
class ArchSpec:
    """One line of the registry."""

    name: str
    title: str
    paper: str
    """First author, venue, year and arXiv id."""
    target: str
    """``module:function``; the function takes (size, changes) and returns a `VLModel` with random weights."""
    can: Can
    """Declared, so that a plan can be made without torch; the contract test compares it with the built model."""
    sizes: tuple[str, ...]
    objectives: tuple[str, ...]
    """Objectives of the paper, the default of a cell that names none."""
    momentum: tuple[str, ...] = ("off",)
    """Momentum states that the paper's own recipe knows; any other capable combination is still allowed."""
    answerer: str = ""
    """``module:function`` that puts a decoder for answers on a built model (`vlpbench.archs.answering`), where that is
    not the model's own ``decode`` behind the question."""
    inputs: Inputs = DEFAULT
    """How pictures and texts become what it is given."""
    sees: bool = False
    """Whether a model that cannot embed can run its image side alone all the same: `VLModel.image_features`."""
    formats: str = ""
    """``module:attribute`` of the forms in which weights are published (`vlpbench.archs.formats`); empty for none."""
    input: str = "pixels"
    """``pixels`` or ``regions``; records of region models state whether detector time is in them.

    One that reads regions has configuration fields ``regions`` (how many), ``features`` (numbers of each) and ``crop``
    (side in pixels where the numbers are those of a cut-out).
    """

    @property
    def answers(self) -> bool:
        """Whether it can write the answer to a question."""
        return bool(self.answerer) or Can.DECODE in self.can


def _local(
    name: str,
    title: str,
    paper: str,
    can: str,
    sizes: str,
    objectives: str,
    momentum: str = "off",
    *,
    sees: bool = False,
    reads: str = "pixels",
    answers: bool = False,
) -> ArchSpec:
    return ArchSpec(
        name=name,
        title=title,
        paper=paper,
        target=f"vlpbench.archs.{name}:build",
        can=Can.parse(can),
        sizes=tuple(sizes.split()),
        objectives=tuple(objectives.split()),
        momentum=tuple(momentum.split()),
        sees=sees,
        answerer=f"vlpbench.archs.answering:{name}" if answers else "",
        inputs=PUBLISHED.get(name, DEFAULT),
        formats=f"vlpbench.archs.formats.{name}:FORMATS",
        input=reads,
    )


BUILT_IN: tuple[ArchSpec, ...] = (
    _local(
        "clip",
        "CLIP",
        "Radford et al., ICML 2021, arXiv:2103.00020",
        "EMBED",
        "tiny small medium base b32 b16 l14",
        "itc",
    ),
    _local(
        "vilt",
        "ViLT",
        "Kim et al., ICML 2021, arXiv:2102.03334",
        "FUSE|MASK",
        "tiny small medium base",
        "itm mlm",
        sees=True,
    ),
    _local(
        "albef",
        "ALBEF",
        "Li et al., NeurIPS 2021, arXiv:2107.07651",
        "EMBED|FUSE|MASK",
        "tiny small medium base",
        "itc itm mlm",
        "off queue distill",
        answers=True,
    ),
    _local(
        "vlmo",
        "VLMo",
        "Bao et al., NeurIPS 2022, arXiv:2111.02358",
        "EMBED|FUSE|MASK",
        "tiny small medium base base_plus large",
        "itc itm mlm",
    ),
    _local(
        "beit3",
        "BEiT-3",
        "Wang et al., 2022, arXiv:2208.10442",
        "EMBED|FUSE|MASK|DECODE",
        "tiny small medium base large",
        "itc mlm",
    ),
    _local(
        "blip",
        "BLIP",
        "Li et al., ICML 2022, arXiv:2201.12086",
        "EMBED|FUSE|MASK|DECODE",
        "tiny small medium base large",
        "itc itm lm",
        "off queue distill",
        answers=True,
    ),
    _local(
        "vsepp", "VSE++", "Faghri et al., BMVC 2018, arXiv:1707.05612", "EMBED", "tiny small medium base", "triplet"
    ),
    _local(
        "coca",
        "CoCa",
        "Yu et al., TMLR 2022, arXiv:2205.01917",
        "EMBED|FUSE|DECODE",
        "tiny small medium base b32 large",
        "itc lm",
    ),
    _local(
        "pali", "PaLI", "Chen et al., ICLR 2023, arXiv:2209.06794", "FUSE|MASK|DECODE", "tiny small medium base", "lm"
    ),
    _local(
        "uniter",
        "UNITER",
        "Chen et al., ECCV 2020, arXiv:1909.11740",
        "FUSE|MASK",
        "tiny small medium base large",
        "itm mlm",
        reads="regions",
    ),
    _local(
        "vilbert",
        "ViLBERT",
        "Lu et al., NeurIPS 2019, arXiv:1908.02265",
        "FUSE|MASK",
        "tiny small medium base",
        "itm mlm",
        reads="regions",
    ),
)


class UnknownName(ValueError):
    """A name that is not registered; the message offers the nearest one."""


def nearest(kind: str, name: str, known: list[str]) -> str:
    """The message for an unknown name: what it was, what it may have meant, what there is."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {kind} {name!r}: {hint}known are {', '.join(sorted(known))}"


def changed(config: C, changes: Mapping[str, Any], *, owner: str) -> C:
    """The frozen configuration ``config`` of ``owner`` with the fields in ``changes`` replaced; lists become tuples.

    Raises:
        UnknownName: for a field that the configuration does not have, with the nearest one.
    """
    known = [field.name for field in dataclasses.fields(config)]
    for name in changes:
        if name not in known:
            raise UnknownName(nearest(f"configuration field of {owner}", name, known))
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    return dataclasses.replace(config, **given)


@cache
def specs() -> dict[str, ArchSpec]:
    """All registered architectures, built-in first, then those of installed packages.

    Raises:
        ValueError: if two registrations share a name.
    """
    found: dict[str, ArchSpec] = {}
    offered = [(f"vlpbench ({spec.target})", spec) for spec in BUILT_IN]
    offered += [(f"entry point {point.value}", point.load()) for point in entry_points(group=GROUP)]
    origin: dict[str, str] = {}
    for source, spec in offered:
        if not isinstance(spec, ArchSpec):
            raise ValueError(f"{source} of group {GROUP!r} must be an ArchSpec, not {type(spec).__name__}")
        if spec.name in found:
            raise ValueError(f"architecture {spec.name!r} is registered twice: by {origin[spec.name]} and by {source}")
        found[spec.name], origin[spec.name] = spec, source
    return found


def get(name: str) -> ArchSpec:
    """The registration of ``name``; ``clip+late`` is derived from ``clip``.

    Raises:
        UnknownName: with the nearest registered name.
        Unsupported: for ``+late`` on an architecture that already fuses or cannot embed.
    """
    base = name.removesuffix(LATE)
    if base not in specs():
        raise UnknownName(nearest("architecture", name, list(specs())))
    spec = specs()[base]
    if name == base:
        return spec
    if Can.FUSE in spec.can or Can.EMBED not in spec.can:
        can = "|".join(spec.can.names())
        raise Unsupported(f"{name}: late fusion is for architectures that embed and do not fuse; {base} can {can}")
    return dataclasses.replace(spec, name=name, title=spec.title + " + late fusion", can=spec.can | Can.FUSE)


def build(name: str, size: str, changes: Mapping[str, Any] | None = None) -> VLModel[Any, Any]:
    """Builds an architecture with random weights on torch's current default device, the meta device included.

    Args:
        name: registered name, with ``+late`` for a late-fusion head.
        size: one of the registration's sizes.
        changes: fields of the architecture's configuration to replace, such as ``image_size`` or ``vocab_size``.

    Raises:
        UnknownName: for an unknown architecture, size or configuration field.
    """
    spec = get(name)
    if size not in spec.sizes:
        raise UnknownName(nearest(f"size of {name}", size, list(spec.sizes)))
    module, _, attribute = spec.target.partition(":")
    model = getattr(importlib.import_module(module), attribute)(size, dict(changes or {}))
    if name.endswith(LATE):
        model = importlib.import_module("vlpbench.archs.latefusion").LateFusion(model)
    return model


def answerer(name: str, model: VLModel[Any, Any]) -> Any:
    """What writes answers for a built model, a `vlpbench.archs.answering.Answerer`: the model itself, or a decoder on
    it that starts from its weights, on torch's current default device.

    Raises:
        Unsupported: for an architecture that writes no answers.
    """
    spec = get(name)
    if not spec.answers:
        raise Unsupported(f"{name} can neither DECODE nor has it a decoder for answers")
    if not spec.answerer:
        return model
    module, _, attribute = spec.answerer.partition(":")
    return getattr(importlib.import_module(module), attribute)(model)
