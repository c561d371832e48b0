"""Image-text contrast in two spaces, as the released VLMo code has it (arXiv:2111.02358, section 3.3).

One space is the model's embedding, behind the experts of each modality alone. For the other, the top blocks take their
experts for pairs, so that these see unpaired inputs as well.

Shape letters: B batch, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.objectives.base import Recipe, TeacherView, at_least_float32, no_autocast
from vlpbench.archs.objectives.itc import CLAMP, ITC
from vlpbench.archs.types import Unsupported

if TYPE_CHECKING:
    from vlpbench.archs.model import Pass, VLModel


class ITCVL(ITC):
    """The mean of the contrast of embeddings and of that behind the experts for pairs, which has heads of its own.

    Both are within the batch; a momentum teacher is not read. Negatives are ranked by the embeddings.
    """

    name: ClassVar[str] = "itc_vl"

    def __init__(self, model: VLModel[Any, Any], recipe: Recipe) -> None:
        """Raises `Unsupported` for a model that has no experts to choose between."""
        super().__init__(model, recipe)
        if not hasattr(model, "contrast"):
            raise Unsupported(f"itc_vl contrasts by two kinds of experts, which {type(model).__name__} has not")
        self.image_proj = nn.Linear(model.width, model.embed_dim, bias=False)
        self.text_proj = nn.Linear(model.width, model.embed_dim, bias=False)
        self.temperature_vl = nn.Parameter(torch.tensor(recipe.temperature))

    def forward(self, view: Pass[Any, Any], *, teacher: TeacherView | None = None, alpha: float = 0.0) -> Tensor:
        """See the class; it is not distilled."""
        if self.training:
            self.temperature_vl.data.clamp_(*CLAMP)
        image, text = (at_least_float32(x) for x in self._experts(view))
        with no_autocast(image.device):
            logits = image @ text.T / self.temperature_vl
        positive = self._positive(view, None).to(logits.dtype)
        vl = (F.cross_entropy(logits, positive) + F.cross_entropy(logits.T, positive)) / 2
        return (super().forward(view) + vl) / 2

    def _logits(self, view: Pass[Any, Any], teacher: TeacherView | None) -> tuple[Tensor, Tensor]:
        self._experts(view)  # leaves the embeddings in the pass, where they would be computed apart
        return super()._logits(view, None)

    def _experts(self, view: Pass[Any, Any]) -> tuple[Tensor, Tensor]:
        """(B, E) each of unit norm, behind the experts for pairs."""

        def compute() -> tuple[Tensor, Tensor]:
            model: Any = view.model
            (image, image_vl), (text, text_vl) = (model.contrast(side, vl=True) for side in (view.image, view.text))
            view.once("image_embed", lambda: image)
            view.once("text_embed", lambda: text)
            return F.normalize(self.image_proj(image_vl), dim=-1), F.normalize(self.text_proj(text_vl), dim=-1)

        return view.once("itc_vl.experts", compute)
