"""ViLT (Kim, Son, Kim, 2021, arXiv:2102.03334): patches and words enter one transformer as they are.

Blocks are timm's, and parameters carry the names of the released checkpoints. Differs from the released code in one
respect that no output but the order of image tokens depends on: patches stay in their own order and all valid ones are
kept, where the released code draws a random permutation at every call.

Shape letters: B batch, L text tokens, N image tokens (class token included), D width, V vocabulary, h w patch rows and
columns, P Q rows and columns of the learnt position grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vlpbench.archs.blocks import BertEmbeddings, BertShape, ConvStem, MaskedHead, init_bert, init_by_fan_in
from vlpbench.archs.model import VLModel
from vlpbench.archs.registry import changed
from vlpbench.archs.types import Can, Fused, Structure, Text

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class ViltConfig:
    """Sizes of the one transformer and of what feeds it."""

    image_size: tuple[int, int]
    """Height, width in pixels, multiples of ``patch``."""
    position_size: tuple[int, int] | None = None
    """Height, width of the images whose patch grid positions are learnt for; None is ``image_size``."""
    patch: int
    stem: Literal["patch", "conv"] = "patch"
    """``patch`` is the paper's linear projection; ``conv`` is the stem of the size-matched models."""
    text_len: int
    vocab_size: int
    width: int
    layers: int
    heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    image_types: int = 1
    """Images that one text can go with: 2 for statements about a pair, each with a modality type of its own."""


SIZES: Mapping[str, ViltConfig] = {
    "tiny": ViltConfig(
        image_size=(32, 32),
        patch=16,
        stem="conv",
        text_len=16,
        vocab_size=40,
        width=32,
        layers=2,
        heads=2,
        mlp_ratio=2.0,
    ),
    "small": ViltConfig(
        image_size=(32, 32),
        patch=16,
        stem="conv",
        text_len=16,
        vocab_size=40,
        width=96,
        layers=7,
        heads=4,
        mlp_ratio=2.5,
    ),
    "medium": ViltConfig(
        image_size=(64, 64), patch=16, stem="conv", text_len=16, vocab_size=40, width=384, layers=11, heads=6
    ),
    "base": ViltConfig(
        image_size=(384, 640),
        position_size=(384, 384),
        patch=32,
        text_len=40,
        vocab_size=30522,
        width=768,
        layers=12,
        heads=12,
        dropout=0.1,
    ),
}
"""``base``: B/32 at the paper's largest image (section 3.2). ``small``, ``medium``: others' parameters within 10 %."""

NOT_OURS: Mapping[str, str] = {
    "mlm_score": "masked-token head: build it with `mlm_head`, which has the same names without this prefix",
    "itm_score": "matching head, which belongs to its objective",
    "mpp_score": "head of masked patch prediction, an ablation of the paper's section 4.4",
    "rank_output": "retrieval head of fine-tuned checkpoints, which belongs to the task",
    "vqa_classifier": "task head: a `ClassifierHead` has the same names without this prefix",
    "nlvr2_classifier": "task head: a `ClassifierHead` has the same names without this prefix",
}
"""Keys, or first parts of keys, of released checkpoints that the model has no parameter for, and why."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """One side's input to the transformer."""

    x: Tensor
    """(B, N or L, D)."""
    valid: Tensor
    """(B, N or L) bool, False where nobody may look."""


class Vilt(VLModel[Tokens, Tokens]):
    """`encode_image` and `encode_text` only embed: every layer of attention is paid per pair, in `fuse`."""

    can = Can.FUSE | Can.MASK
    components: ClassVar[Mapping[str, str]] = {
        "transformer": "fusion",
        "transformer.patch_embed": "embedding",
        "transformer.cls_token": "embedding",
        "transformer.pos_embed": "embedding",
        "pooler": "fusion",
        "text_embeddings": "embedding",
        "token_type_embeddings": "embedding",
    }

    def __init__(self, config: ViltConfig) -> None:
        super().__init__()
        position_size = config.position_size or config.image_size
        if any(side % config.patch for side in (*config.image_size, *position_size)):
            raise ValueError(
                f"image size {config.image_size} and position size {position_size} must be multiples of the patch size "
                f"{config.patch}"
            )
        self.image_size, self.text_len, self.vocab_size = config.image_size, config.text_len, config.vocab_size
        self.width, self.embed_dim, self.patch = config.width, 0, config.patch
        self.position_grid = (position_size[0] // config.patch, position_size[1] // config.patch)
        self.transformer: Any = VisionTransformer(
            img_size=position_size,
            patch_size=config.patch,
            num_classes=0,
            global_pool="",
            embed_dim=config.width,
            depth=config.layers,
            num_heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            pos_drop_rate=config.dropout,
            proj_drop_rate=config.dropout,
            attn_drop_rate=config.dropout,
        )
        if config.stem == "conv":
            self.transformer.patch_embed.proj = ConvStem(config.width, config.patch)
        shape = BertShape(width=config.width, heads=config.heads, dropout=config.dropout)
        self.text_embeddings = BertEmbeddings(shape, vocab_size=config.vocab_size, positions=config.text_len)
        self.token_type_embeddings = nn.Embedding(1 + config.image_types, config.width)
        self.pooler = nn.ModuleDict({"dense": nn.Linear(config.width, config.width)})
        for module in (self.text_embeddings, self.token_type_embeddings, self.pooler):
            init_bert(module)
        if config.stem == "conv":
            init_by_fan_in(self)

    def encode_image(self, image: Tensor, *, image_type: int = 1) -> Tokens:
        """Patch, position and modality type embeddings of all patches, row by row, behind the class token.

        Images of a batch may be smaller than its canvas: a patch whose first pixel is exactly zero in all channels is
        padding, which nobody attends to, and positions are interpolated to the rows and columns that are left
        (released code, ``visual_embed``; it tests the sum of the channels, which real pixels can bring to zero).

        Args:
            image: H and W may differ from ``image_size``.
            image_type: which image of a pair this is, from 1.

        Raises:
            ValueError: for an image that patches do not cover.
        """
        vit, patch = self.transformer, self.patch
        if image.shape[2] % patch or image.shape[3] % patch:
            raise ValueError(f"an image of {image.shape[2]} x {image.shape[3]} pixels is no multiple of patch {patch}")
        patches = vit.patch_embed.proj(image)
        if patches.ndim == 4:
            patches = patches.flatten(2).transpose(1, 2)
        valid = (image[:, :, ::patch, ::patch] != 0).any(dim=1)
        first = (vit.cls_token + vit.pos_embed[:, :1]).expand(len(image), -1, -1)
        x = vit.pos_drop(torch.cat([first, patches + self._positions(valid)], dim=1))
        return Tokens(
            x=x + self.token_type_embeddings.weight[image_type],
            valid=torch.cat([valid.new_ones(len(image), 1), valid.flatten(1)], dim=1),
        )

    def encode_text(self, text: Text) -> Tokens:
        """BERT's word, position and segment embeddings, and the modality type."""
        return Tokens(x=self.text_embeddings(text.ids) + self.token_type_embeddings.weight[0], valid=text.mask)

    def see(self, image: Tensor) -> Tensor:
        """The transformer over the image's tokens alone: their class token, as of a ViT."""
        tokens = self.encode_image(image)
        x, seen = tokens.x, tokens.valid[:, None, None, :]
        for block in self.transformer.blocks:
            x = block(x, attn_mask=seen)
        return self.transformer.norm(x)[:, 0]

    def fuse(self, image: Tokens, text: Tokens) -> Fused:
        """The whole transformer over [text; image]; pooled is the text's first token through a tanh layer."""
        x, seen = _joined(image, text)
        for block in self.transformer.blocks:
            x = block(x, attn_mask=seen)
        x = self.transformer.norm(x)
        return Fused(pooled=self._pool(x), text=x[:, : text.x.shape[1]])

    def fuse_pooled(self, image: Tokens, text: Tokens) -> Tensor:
        """The same, the last block for the text's first token alone."""
        x, seen = _joined(image, text)
        for block in self.transformer.blocks[:-1]:
            x = block(x, attn_mask=seen)
        return self._pool(self.transformer.norm(_first_token(self.transformer.blocks[-1], x, seen)))

    def word_embedding(self) -> nn.Embedding:
        """BERT's."""
        return self.text_embeddings.word_embeddings

    def mlm_head(self) -> MaskedHead:
        """BERT's, with a decoder of its own."""
        return MaskedHead(self.width, self.vocab_size)

    def structure(self) -> Structure:
        """Image tokens are those of ``image_size``: positions are resampled to any grid."""
        rows, columns = (side // self.patch for side in self.image_size)
        return Structure(
            image_tokens=rows * columns + 1,
            text_tokens=self.text_embeddings.position_embeddings.num_embeddings,
            width=self.transformer.pos_embed.shape[-1],
            image_layers=0,
            text_layers=0,
            fusion_layers=len(self.transformer.blocks),
            notes=(f"positions learnt for {self.position_grid[0]} x {self.position_grid[1]} patches",),
        )

    def _pool(self, x: Tensor) -> Tensor:
        return torch.tanh(self.pooler["dense"](x[:, 0]))

    def _positions(self, valid: Tensor) -> Tensor:
        """(B, h, w) bool -> (B, h * w, D), the position grid resampled to each image's valid rows and columns.

        Equals a bilinear resize with aligned corners image by image, as two products with interpolation weights: no
        size depends on the data, so it runs on the meta device and without a synchronisation.
        """
        P, Q = self.position_grid
        grid = self.transformer.pos_embed[0, 1:]
        rows = _weights(valid[:, :, 0].sum(dim=1), valid.shape[1], P).to(grid.dtype)
        columns = _weights(valid[:, 0, :].sum(dim=1), valid.shape[2], Q).to(grid.dtype)
        tall = (rows @ grid.view(P, -1)).unflatten(2, (Q, -1))
        # Back to the parameters' type: under autocast the products are of low precision, the residual stream is not.
        return (columns[:, None] @ tall).flatten(1, 2).to(grid.dtype)


def _joined(image: Tokens, text: Tokens) -> tuple[Tensor, Tensor]:
    """[text; image], and (B, 1, 1, L + N) where it may be looked at: heads and queries alike."""
    seen = torch.cat([text.valid, image.valid], dim=1)[:, None, None, :]
    return torch.cat([text.x, image.x], dim=1), seen


def _first_token(block: Any, x: Tensor, seen: Tensor) -> Tensor:
    """What a timm block gives for the first token, (B, 1, D): its query over all keys and values."""
    attention, first = block.attn, x[:, :1]
    width, (weight, bias) = x.shape[2], (attention.qkv.weight, attention.qkv.bias)
    normed = block.norm1(x)
    query = F.linear(normed[:, :1], weight[:width], bias[:width])
    key, value = F.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)
    query, key, value = (t.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for t in (query, key, value))
    dropout = attention.attn_drop.p if attention.training else 0.0
    context = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropout)
    first = first + attention.proj_drop(attention.proj(context.transpose(1, 2).flatten(2)))
    return first + block.mlp(block.norm2(first))


def _weights(count: Tensor, target: int, source: int) -> Tensor:
    """Linear interpolation with aligned corners from ``source`` points to ``count`` (B,) points: (B, target, source).

    Rows from ``count`` on stand for padding and mean nothing.
    """
    step = (source - 1) / (count - 1).clamp(min=1)
    place = torch.arange(target, device=count.device) * step[:, None]
    return (1 - (place[:, :, None] - torch.arange(source, device=count.device)).abs()).clamp(min=0)


def build(size: str, changes: Mapping[str, Any]) -> Vilt:
    """ViLT with random weights.

    Raises:
        UnknownName: for a field that `ViltConfig` does not have.
    """
    return Vilt(changed(SIZES[size], changes, owner=f"vilt {size}"))


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
