"""CLIP's: OpenAI's and open_clip's form, and transformers'."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vlpbench.archs.formats.base import Format, Grid, inverse_exponential
from vlpbench.archs.formats.names import joined, renamed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_PARTS = ("visual", "transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection")
_NUMBERS = dict.fromkeys(
    ("input_resolution", "context_length", "vocab_size"), "a number that OpenAI's archives store beside the weights"
)
_HF = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
)
_LAYER = (
    (r"(resblocks\.\d+)\.self_attn\.out_proj\.", r"\1.attn.out_proj."),
    (r"(resblocks\.\d+)\.layer_norm([12])\.", r"\1.ln_\2."),
    (r"(resblocks\.\d+)\.mlp\.fc1\.", r"\1.mlp.c_fc."),
    (r"(resblocks\.\d+)\.mlp\.fc2\.", r"\1.mlp.c_proj."),
)


def _of_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = renamed(renamed(state, _HF), _LAYER)
    pattern = r"(?P<layer>resblocks\.\d+)\.self_attn\.(?P<part>[qkv])_proj\."
    found = joined(found, pattern, "qkv", r"\g<layer>.attn.in_proj_")
    for theirs, ours in (("visual_projection.weight", "visual.proj"), ("text_projection.weight", "text_projection")):
        if theirs in found:
            found[ours] = found.pop(theirs).T
    return {key: tensor for key, tensor in found.items() if not key.endswith("position_ids")}


def _activation(config: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers' config.json says of the activation, whose default is OpenAI's."""
    towers = [config.get(name) or {} for name in ("text_config", "vision_config")]
    return {"quick_gelu": all(tower.get("hidden_act", "quick_gelu") == "quick_gelu" for tower in towers)}


_OPEN_CLIP = Format(
    name="open_clip",
    marks=("visual", "text_projection", "logit_scale"),
    without=("input_resolution", "text_decoder"),
    rules={f"model.{part}": part for part in _PARTS},
    made={"objectives.itc.temperature": ("logit_scale", inverse_exponential)},
    grids={"model.visual.positional_embedding": Grid(antialias=True)},
    sizes={"vocab_size": ("token_embedding.weight", 0, 0), "text_len": ("positional_embedding", 0, 0)},
)
FORMATS = (
    replace(
        _OPEN_CLIP,
        name="openai",
        marks=("visual", "text_projection", "input_resolution"),
        without=(),
        apart=_NUMBERS,
        changes={"quick_gelu": True},
    ),
    _OPEN_CLIP,
    replace(
        _OPEN_CLIP,
        name="transformers CLIPModel",
        marks=("vision_model", "text_model", "visual_projection"),
        without=(),
        translate=_of_transformers,
        configure=_activation,
    ),
)
"""OpenAI's weights were trained with the quick GELU; whether open_clip's were, their name says."""
