"""What VLMo is trained on: the stages of its pre-training, its heads for VQA and NLVR2, and its official checkpoints.

Shape letters: B batch, L text tokens, D width, M masked tokens, V vocabulary, C answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.heads import ClassifierHead
from vlpbench.archs.learner import Learner, Recipe, draw_masked
from vlpbench.archs.model import Pass, take
from vlpbench.archs.objectives.base import at_least_float32
from vlpbench.archs.objectives.itm import draw_negatives
from vlpbench.archs.objectives.queue import gather_ranks
from vlpbench.archs.pretrained import Layout, load, save
from vlpbench.archs.types import Batch, Masked, Negatives, Text
from vlpbench.archs.vlmo import Vlmo

RECIPE = Recipe(objectives=("itc_vl", "itm", "mlm"), weights=(1.0, 1.0, 0.25))
"""The released pre-training on pairs; the paper weighs its three losses alike."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of pre-training (section 3.4): its data, its loss, and what it trains."""

    data: str
    loss: str
    trained: tuple[str, ...]
    """Parts of names; a parameter whose name has none of them is frozen. Empty trains everything."""

    def trains(self, parameter: str) -> bool:
        """Whether the parameter of this name learns."""
        return not self.trained or any(part in parameter for part in self.trained)


STAGES: Mapping[str, Stage] = {
    "image": Stage(
        data="images alone",
        loss="masked image modelling (BEiT), from whose checkpoint the released code starts",
        trained=(
            "transformer.cls_token",
            "transformer.pos_embed",
            "transformer.patch_embed",
            "norm1",
            ".attn.",
            "gamma_",
            "mlp_imag",
            "norm2_imag",
            "relative_position_bias",
            "transformer.norm",
        ),
    ),
    "text": Stage(
        data="texts alone",
        loss="masked language modelling: `TextStage`",
        trained=(
            "text_embeddings",
            "token_type_embeddings",
            "mlp_text",
            "norm2_text",
            "relative_position_bias",
            "transformer.norm",
            "head",
        ),
    ),
    "pair": Stage(data="image-text pairs", loss="`RECIPE`", trained=()),
}
"""In order. Attention and the experts for images keep in the second stage what images taught them; the list of what it
trains is the released code's."""


def enter(module: nn.Module, stage: str) -> None:
    """Freezes and thaws the parameters of a model, a `TextStage` or a `Learner` as a stage of `STAGES` has it."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(STAGES[stage].trains(name))


class TextStage(nn.Module):
    """Masked language modelling on texts alone, through the experts for texts in every block."""

    def __init__(self, model: Vlmo) -> None:
        super().__init__()
        self.model = model
        self.head = model.mlm_head()

    def forward(self, masked: Masked) -> Tensor:
        """Logits (M, V) at the masked positions."""
        hidden = self.model.text_tokens(self.model.encode_text(masked.text))
        return at_least_float32(self.head(hidden.flatten(0, 1).index_select(0, masked.position)))

    def loss(self, masked: Masked) -> Tensor:
        """Mean cross-entropy of the original tokens."""
        return F.cross_entropy(self(masked), masked.label)


def pretraining_losses(
    learner: Learner, batch: Batch, *, masked: Masked | None = None, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """The losses of `RECIPE` with global hard negatives (section 3.3): matching draws from the pairs of all ranks.

    Contrast stays within the batch of a rank. In one process this is ``learner(batch)``.

    Args:
        learner: trains by `RECIPE`.
        batch: of this rank, as large as that of every other; sample ids are those of images, so unique over ranks.
        masked: drawn if it is not given.
        generator: draws masks and negatives.
    """
    if masked is None:
        masked = draw_masked(batch.text, learner.tokens, learner.recipe.mlm_probability, generator)
    view = Pass(learner.model, batch, masked=masked)
    objectives: Any = learner.objectives
    to_text, to_image = objectives["itc_vl"].similarity(view, None)
    everyone = _everyone(batch)
    if len(everyone.sample_id) > view.size:
        temperature = objectives["itc_vl"].temperature
        image, text = (x.detach() for x in (view.image_embed, view.text_embed))
        to_text, to_image = (a @ gather_ranks(b).T / temperature for a, b in ((image, text), (text, image)))
    drawn = draw_negatives(batch.sample_id, (to_text, to_image), generator, candidates=everyone.sample_id)
    view.once("fused_pairs", lambda: _pairs(view, everyone, drawn))
    return {name: objective(view) for name, objective in objectives.items()}


def _everyone(batch: Batch) -> Batch:
    """The pairs of all ranks, rank 0 first."""
    ids, mask = gather_ranks(batch.text.ids), gather_ranks(batch.text.mask)
    image, sample_id = gather_ranks(batch.image), gather_ranks(batch.sample_id)
    return Batch(image=image, text=Text(ids=ids, mask=mask), sample_id=sample_id)


def _pairs(view: Pass[Any, Any], everyone: Batch, drawn: Negatives) -> Tensor:
    """Pooled (3B, D): matching pairs; texts with their negative images; images with their negative texts."""
    model = view.model
    image = model.encode_image(everyone.image.index_select(0, drawn.image))
    text = model.encode_text(take(everyone.text, drawn.text))
    pairs = ((view.image, view.text), (image, view.text), (view.image, text))
    return torch.cat([model.fuse_pooled(*pair) for pair in pairs])


class Answering(nn.Module):
    """VQA as a choice among C answers."""

    def __init__(self, model: Vlmo, answers: int) -> None:
        super().__init__()
        self.model = model
        self.head = ClassifierHead(model.width, answers)

    def forward(self, image: Tensor, question: Text) -> Tensor:
        """Logits (B, C)."""
        return self.head(self.model.fuse_pooled(self.model.encode_image(image), self.model.encode_text(question)))

    def loss(self, logits: Tensor, share: Tensor) -> Tensor:
        """Binary cross-entropy with the (B, C) shares of people who gave an answer: summed over answers, mean of B."""
        return F.binary_cross_entropy_with_logits(at_least_float32(logits), share) * share.shape[1]


class PairClassifying(nn.Module):
    """NLVR2: the text with each of two images, both pooled vectors side by side."""

    def __init__(self, model: Vlmo, classes: int = 2) -> None:
        """``model`` has ``image_types`` 2.

        Raises:
            ValueError: if it has one.
        """
        super().__init__()
        types = model.token_type_embeddings.num_embeddings - 1
        if types < 2:
            raise ValueError(f"statements about two images need a model with image_types 2, not {types}")
        self.model = model
        self.head = ClassifierHead(2 * model.width, classes, hidden=2 * model.width)

    def forward(self, left: Tensor, right: Tensor, text: Text) -> Tensor:
        """(B, 3, H, W) each -> logits (B, classes)."""
        model = self.model
        words = model.encode_text(text)
        pooled = [model.fuse_pooled(model.encode_image(x, image_type=t), words) for t, x in ((1, left), (2, right))]
        return self.head(torch.cat(pooled, dim=-1))


_MODEL = {
    f"model.{name}": name
    for name in (
        "transformer",
        "text_embeddings",
        "token_type_embeddings",
        "pooler",
        "itc_image_proj",
        "itc_text_proj",
    )
} | {"model.relative_position_bias": "relative_position_bias_table"}
_SCALES = {"logit_scale": "temperature", "logit_vl_scale": "temperature_vl"}
PRETRAIN = Layout(
    name="vlmo_pretrain",
    rules=_MODEL
    | {
        "objectives.itc_vl.image_proj": "itc_vl_image_proj.fc",
        "objectives.itc_vl.text_proj": "itc_vl_text_proj.fc",
        "objectives.itm.head": "itm_score.fc",
        "objectives.mlm.head": "mlm_score",
    },
    absent={
        f"objectives.itc_vl.{ours}": f"a temperature; the official {official} is the logarithm of its inverse"
        for official, ours in _SCALES.items()
    },
)
"""`Learner` with the objectives of `RECIPE`. The two temperatures are converted; every other tensor is as official."""


def load_pretrained(learner: Learner, state: Mapping[str, Tensor]) -> None:
    """Loads a pre-training checkpoint of the released code, every key of it.

    Raises:
        CheckpointError: for missing and unexpected keys.
        RuntimeError: for a shape that differs, from torch.
        KeyError: for a checkpoint without temperatures.
    """
    load(learner, {key: tensor for key, tensor in state.items() if key not in _SCALES}, PRETRAIN)
    contrast = learner.objectives["itc_vl"]
    for official, ours in _SCALES.items():
        contrast.get_parameter(ours).data.copy_((-state[official]).exp())


def save_pretrained(learner: Learner) -> dict[str, Tensor]:
    """The state in the layout of the released code: as it was loaded, up to the rounding of the two temperatures."""
    contrast = learner.objectives["itc_vl"]
    scales = {official: -contrast.get_parameter(ours).detach().log() for official, ours in _SCALES.items()}
    return save(learner, PRETRAIN) | scales
