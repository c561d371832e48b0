"""Depths to sweep, read off models built on meta: what a configuration calls its layers is found out by trying."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from vlpbench.archs import registry
from vlpbench.archs.model import parameter_count
from vlpbench.archs.registry import UnknownName
from vlpbench.archs.types import Text, Unsupported

if TYPE_CHECKING:
    from vlpbench.archs.model import VLModel

    Changes = tuple[tuple[str, int], ...]

FIELDS = {"image": ("image_layers",), "text": ("text_layers",), "fusion": ("fusion_layers", "layers")}
"""Part -> what a configuration may call the number of its layers; what the field does is seen on the built model."""
EQUAL = 0.05
"""Largest relative difference in parameters of depths that are compared as equal."""
RATIOS = ((3, 1), (1, 1), (1, 3))


def depths(name: str, arch: str, size: str) -> tuple[Changes, ...]:
    """Changes of the configuration, one for each row of the sweep ``fusion_depth`` or ``depth_ratio``.

    Raises:
        Unsupported: if the architecture has no such layers, or unequal ones where equal parameters are needed.
    """
    structure = _build(arch, size).structure()
    if name == "fusion_depth":
        full = structure.fusion_layers
        field = _field(arch, size, "fusion", full)
        found = [((field, depth),) for depth in sorted({0, 1, full // 2, full})]
        return tuple(changes for changes in found if _builds(arch, size, changes))
    layers = structure.image_layers + structure.text_layers
    unit = max(1, round(layers / 4))
    image, text = (_field(arch, size, part, getattr(structure, f"{part}_layers")) for part in ("image", "text"))
    found = [((image, unit * 4 * a // (a + b)), (text, unit * 4 * b // (a + b))) for a, b in RATIOS]
    counts = [parameter_count(_build(arch, size, changes)) for changes in found]
    if max(counts) > (1 + EQUAL) * min(counts):
        shown = ", ".join(f"{dict(changes)} {count:,}" for changes, count in zip(found, counts, strict=True))
        raise Unsupported(f"image and text layers of {arch} {size} are no equals, so neither are parameters: {shown}")
    return tuple(tuple(sorted(changes)) for changes in found)


def _field(arch: str, size: str, part: str, layers: int) -> str:
    """The field of the configuration that sets the number of this part's layers.

    Raises:
        Unsupported: if there is none.
    """
    for field in FIELDS[part] if layers else ():
        try:
            changed = _build(arch, size, ((field, layers + 1),))
        except UnknownName:
            continue
        if getattr(changed.structure(), f"{part}_layers") == layers + 1:
            return field
    raise Unsupported(f"{arch} {size} has no {part} layers whose number could be changed")


def _builds(arch: str, size: str, changes: Changes) -> bool:
    """Whether there is such a model, and it fuses: not every one can do without this part."""
    try:
        model = _build(arch, size, changes)
        with torch.device("meta"):
            ids = torch.empty(1, model.text_len, dtype=torch.long)
            text = model.encode_text(Text(ids=ids, mask=ids.bool()))
            model.fuse_pooled(model.encode_image(torch.empty(1, *model.image_shape)), text)
    except (ValueError, IndexError):
        return False
    return True


def _build(arch: str, size: str, changes: Changes = ()) -> VLModel[Any, Any]:
    with torch.device("meta"):
        return registry.build(arch, size, dict(changes))
