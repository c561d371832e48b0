"""ViLT (Kim, Son, Kim, 2021, arXiv:2102.03334): patches and words enter one transformer as they are.

Blocks are timm's, and parameters carry the names of the released checkpoints, which are loaded by
`vlpbench.archs.vilt_tasks`. Patches stay in their own order and all valid ones are kept; the released code draws a
random order at every call and in pre-training keeps 200 (``code``, ``keep``).

Shape letters: B batch, L text tokens, N image tokens (class token included), K patches kept, D width, V vocabulary, h w
patch rows and columns, P Q rows and columns of the learnt position grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vlpbench.archs.blocks import BertEmbeddings, BertShape, ConvStem, MaskedHead, init_bert, init_by_fan_in
from vlpbench.archs.model import VLModel
from vlpbench.archs.registry import changed
from vlpbench.archs.types import Can, Fused, HiddenPatches, Joint, Structure, Text
from vlpbench.archs.vilt_parts import first_token, kept_patches, resized_positions

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
    keep: int | None = None
    """Patches of an image that training keeps, at random among the valid ones; None is all, as in evaluation."""
    code: Literal["clean", "official"] = "clean"
    """``official`` puts the patches in a random order at every call, and takes for padding what sums to zero over the
    channels, as the released code does."""


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


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """One side's input to the transformer."""

    x: Tensor
    """(B, N or L, D)."""
    valid: Tensor
    """(B, N or L) bool, False where nobody may look."""
    place: Tensor | None = None
    """(B, K) int64, which patch each token behind the class token is; None where all are there in their own order."""


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
        self.keep, self.official = config.keep, config.code == "official"
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
        return self._placed(image, self._patches(image), image_type)

    def encode_text(self, text: Text) -> Tokens:
        """BERT's word, position and segment embeddings, and the modality type."""
        return Tokens(x=self.text_embeddings(text.ids) + self.token_type_embeddings.weight[0], valid=text.mask)

    def image_features(self, image: Tensor) -> Tensor:
        """The transformer over the image's tokens alone: their class token, as of a ViT."""
        return self._through(self.encode_image(image))[:, 0]

    def fuse(self, image: Tokens, text: Tokens) -> Fused:
        """The whole transformer over [text; image]; pooled is the text's first token through a tanh layer."""
        x = self._through(text, image)
        return Fused(pooled=self._pool(x, image, text), text=x[:, : text.x.shape[1]])

    def fuse_tokens(self, image: Tokens, text: Tokens) -> Joint:
        """The same with the image tokens. What is aligned are words, without [CLS] and the last token, and patches."""
        x, length = self._through(text, image), text.x.shape[1]
        place = torch.arange(length, device=x.device)
        inner = (place > 0) & (place < text.valid.sum(dim=1, keepdim=True) - 1)
        patches = torch.arange(image.x.shape[1], device=x.device) > 0
        return Joint(
            pooled=self._pool(x, image, text),
            text=x[:, :length],
            image=x[:, length:],
            text_mask=text.valid & inner,
            image_mask=image.valid & patches,
        )

    def predict_patches(
        self, image: Tensor, text: Tokens, hidden: HiddenPatches, stand_in: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """States behind all blocks of patches (B, K, D) of which some are ``hidden`` behind ``stand_in`` (D,).

        Returns:
            The states; (B, K) which patches they are, None for all in order; (B, K) bool, False at padding.
        """
        patches = self._patches(image)
        patches = torch.where(hidden.replaced[..., None], stand_in.to(patches.dtype), patches)
        tokens = self._placed(image, patches, image_type=1)
        x = self._through(text, tokens)[:, text.x.shape[1] + 1 :]
        return x, tokens.place, tokens.valid[:, 1:]

    def fuse_pooled(self, image: Tokens, text: Tokens) -> Tensor:
        """The same, the last block for the text's first token alone."""
        if not self.transformer.blocks:
            return self.fuse(image, text).pooled
        x, seen = _joined(text, image)
        for block in self.transformer.blocks[:-1]:
            x = block(x, attn_mask=seen)
        return self._pool(self.transformer.norm(first_token(self.transformer.blocks[-1], x, seen)), image, text)

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

    def _patches(self, image: Tensor) -> Tensor:
        """(B, h * w, D)."""
        if image.shape[2] % self.patch or image.shape[3] % self.patch:
            size = f"{image.shape[2]} x {image.shape[3]}"
            raise ValueError(f"an image of {size} pixels is no multiple of patch {self.patch}")
        patches = self.transformer.patch_embed.proj(image)
        return patches.flatten(2).transpose(1, 2) if patches.ndim == 4 else patches

    def _placed(self, image: Tensor, patches: Tensor, image_type: int) -> Tokens:
        """Patches with all that is added to them, those that are kept, and which are padding."""
        vit, corner = self.transformer, image[:, :, :: self.patch, :: self.patch]
        valid = corner.sum(dim=1) != 0 if self.official else (corner != 0).any(dim=1)
        patches, seen = patches + resized_positions(vit.pos_embed, self.position_grid, valid), valid.flatten(1)
        place = kept_patches(seen, self.keep if self.training else None, shuffled=self.official)
        if place is not None:
            patches = patches.gather(1, place[..., None].expand(-1, -1, patches.shape[2]))
            seen = seen.gather(1, place)
        first = (vit.cls_token + vit.pos_embed[:, :1]).expand(len(image), -1, -1)
        return Tokens(
            x=vit.pos_drop(torch.cat([first, patches], dim=1)) + self.token_type_embeddings.weight[image_type],
            valid=torch.cat([seen.new_ones(len(image), 1), seen], dim=1),
            place=place,
        )

    def _through(self, *sides: Tokens) -> Tensor:
        """All tokens behind all blocks and the norm, (B, L + N, D) of text and image."""
        x, seen = _joined(*sides)
        for block in self.transformer.blocks:
            x = block(x, attn_mask=seen)
        return self.transformer.norm(x)

    def _pool(self, x: Tensor, image: Tokens, text: Tokens) -> Tensor:
        """(B, D). Without any block the first token has seen nothing, so that the mean of all stands for the pair."""
        first = x[:, 0]
        if not self.transformer.blocks:
            valid = torch.cat([text.valid, image.valid], dim=1).to(x.dtype)[..., None]
            first = (x * valid).sum(dim=1) / valid.sum(dim=1)
        return torch.tanh(self.pooler["dense"](first))


def _joined(*sides: Tokens) -> tuple[Tensor, Tensor]:
    """[text; image], and (B, 1, 1, L + N) where it may be looked at: heads and queries alike."""
    seen = torch.cat([side.valid for side in sides], dim=1)[:, None, None, :]
    return torch.cat([side.x for side in sides], dim=1), seen


def build(size: str, changes: Mapping[str, Any]) -> Vilt:
    """ViLT with random weights.

    Raises:
        UnknownName: for a field that `ViltConfig` does not have.
    """
    return Vilt(changed(SIZES[size], changes, owner=f"vilt {size}"))
