"""Checkpoints that ViLT is loaded from: released ones, and the image classifier that its pre-training starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlpbench.archs.pretrained import resize_positions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from vlpbench.archs.vilt import Vilt

NOT_OURS: Mapping[str, str] = {
    "mlm_score": "masked-token head: build it with `mlm_head`, which has the same names without this prefix",
    "itm_score": "matching head, which belongs to its objective",
    "mpp_score": "head of masked patch prediction: `PatchHead` has the same names without this prefix",
    "rank_output": "retrieval head of fine-tuned checkpoints, which belongs to the task",
    "vqa_classifier": "task head: a `ClassifierHead` has the same names without this prefix",
    "nlvr2_classifier": "task head: a `ClassifierHead` has the same names without this prefix",
}
"""Keys, or first parts of keys, of released checkpoints that the model has no parameter for, and why."""
NOT_VISION = ("head", "fc_norm", "pre_logits")
"""First parts of a classifier's keys that belong to its classes."""


def load_official(model: Vilt, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Loads a checkpoint in the layout of the released code, every key of it.

    Returns:
        The entries of the checkpoint that are in `NOT_OURS`, among them the heads.

    Raises:
        RuntimeError: for a key that is missing, unknown or of another shape.
    """
    apart = {key for key in state for name in NOT_OURS if key == name or key.startswith(name + ".")}
    model.load_state_dict({key: value for key, value in state.items() if key not in apart})
    return {key: value for key, value in state.items() if key in apart}


def load_vision(model: Vilt, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Starts the transformer, patches and positions from an image classifier; the paper's is timm's ViT-B/32.

    Texts, modality types and the pooler keep their random weights. Positions are resized to the model's grid.

    Args:
        model: with linear patches.
        state: of a timm `VisionTransformer` of the same width, depth and patch.

    Returns:
        The entries that belong to the classes of images.

    Raises:
        RuntimeError: for a key that is missing, unknown or of another shape.
    """
    apart = {key for key in state if key.partition(".")[0] in NOT_VISION}
    kept = {key: value for key, value in state.items() if key not in apart}
    if "pos_embed" in kept:
        kept["pos_embed"] = resize_positions(kept["pos_embed"], model.position_grid)
    model.transformer.load_state_dict(kept)
    return {key: state[key] for key in apart}
