"""Alignment of words with patches or regions, beside matching (UNITER, equation 3; ViLT, section 3.2).

The papers weigh it by 0.1: ``objectives = "itm+mlm+wpa"``, ``weights = "1+1+0.1"``.

Shape letters: B batch, P pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from vlpbench.archs.objectives.base import Objective, Recipe, TeacherView, at_least_float32, no_autocast
from vlpbench.archs.objectives.itm import matching
from vlpbench.archs.transport import transport_distance
from vlpbench.archs.types import Joint, Unsupported

if TYPE_CHECKING:
    from vlpbench.archs.model import Pass, VLModel


class WPA(Objective):
    """Mean over the pairs of matching of their transport distance: of matches as it is, of others negative.

    The pairs are those of `vlpbench.archs.objectives.itm.ITM`, fused once for both.
    """

    name: ClassVar[str] = "wpa"
    matches: ClassVar[bool] = True

    def __init__(self, model: VLModel[Any, Any], recipe: Recipe) -> None:
        """Raises `Unsupported` for a model that keeps no image tokens behind fusion."""
        super().__init__(model, recipe)
        if not hasattr(model, "fuse_tokens"):
            raise Unsupported(f"wpa aligns fused tokens of both sides, and {type(model).__name__} keeps none of images")

    def prepare(self, view: Pass[Any, Any]) -> None:
        """Matching reads the pooled state of the same pairs."""
        view.once("fused_pairs", lambda: self._joint(view).pooled)

    def distances(self, view: Pass[Any, Any]) -> Tensor:
        """(P,) of the fused pairs."""
        joint = self._joint(view)
        with no_autocast(joint.text.device):
            text, image = at_least_float32(joint.text), at_least_float32(joint.image)
            return transport_distance(text, image, joint.text_mask, joint.image_mask)

    def forward(self, view: Pass[Any, Any], *, teacher: TeacherView | None = None, alpha: float = 0.0) -> Tensor:
        """See the class; alignment is not distilled."""
        distance = self.distances(view)
        return torch.where(matching(view, len(distance)), distance, -distance).mean()

    @staticmethod
    def _joint(view: Pass[Any, Any]) -> Joint:
        model: Any = view.model
        return view.once("wpa.joint", lambda: model.fuse_tokens(*view.pairs()))
