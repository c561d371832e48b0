"""The one interface every architecture implements, and `Pass`, which runs it over a batch without repeating work.

Shape letters: B batch, L text tokens, N image tokens, D width, E joint embedding size, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from vlpbench.archs.types import Batch, Can, Fused, Structure, Text, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vlpbench.archs.types import HiddenPatches, Masked, Negatives

I = TypeVar("I")  # noqa: E741 - the image state of an architecture, as in the interface's documentation
T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")


def take(state: S, index: Tensor) -> S:
    """Gathers rows of any encoder state along the batch axis.

    A state is a tensor, None, or a tuple, list, dict or dataclass of states, batch first. This is what lets hard
    negatives, reranking and caches work on every architecture without knowing what its states hold.

    Args:
        state: what ``encode_image`` or ``encode_text`` returned, batch size B.
        index: (K,) int64 rows, repeats allowed.

    Raises:
        TypeError: for a state built from anything else.
    """
    if state is None:
        return state
    if isinstance(state, Tensor):
        return cast("S", state.index_select(0, index))
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return cast("S", type(state)(*(take(item, index) for item in state)))
    if isinstance(state, (tuple, list)):
        return cast("S", type(state)(take(item, index) for item in state))
    if isinstance(state, dict):
        return cast("S", {key: take(item, index) for key, item in state.items()})
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        fields = {field.name: take(getattr(state, field.name), index) for field in dataclasses.fields(state)}
        return cast("S", dataclasses.replace(cast("Any", state), **fields))
    raise TypeError(f"an encoder state holds tensors, tuples, lists, dicts and dataclasses, not {type(state).__name__}")


class VLModel(nn.Module, Generic[I, T]):
    """A vision-language model cut where retrieval cost is decided: pair-independent work against per-pair work.

    ``encode_*`` and ``embed_*`` depend on one image or one text and may be cached by a retrieval index; ``fuse`` and
    ``decode`` are paid for every pair. Methods that a model cannot do raise `Unsupported` and are absent from ``can``;
    the contract test (`vlpbench.archs.contract`) holds both to be true.
    """

    can: Can = Can(0)
    components: ClassVar[Mapping[str, str]] = {}
    """Prefix of a parameter's name -> component, such as ``image``; the longest matching prefix counts."""

    # Set by every subclass.
    image_size: tuple[int, int]
    """Height and width in pixels that the model was built for."""
    text_len: int
    vocab_size: int
    width: int
    """D of ``Fused.pooled``, and of ``Fused.text`` but where ``text_width`` differs; 0 for a model that cannot fuse."""
    embed_dim: int
    """E of ``embed_image`` and ``embed_text``; 0 for a model that cannot embed."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of one image as `encode_image` reads it: (3, H, W), or (R, F + 4) for a model that reads regions."""
        return (3, *self.image_size)

    @property
    def text_width(self) -> int:
        """D of ``Fused.text``: ``width``, but where a stream for texts is narrower than what pairs are pooled to."""
        return self.width

    def encode_image(self, image: Tensor) -> I:
        """(B, 3, H, W) pixels, or (B, R, F + 4) regions -> the architecture's own image state, batch first."""
        raise NotImplementedError

    def encode_text(self, text: Text) -> T:
        """Token ids (B, L) -> the architecture's own text state, batch first."""
        raise NotImplementedError

    def image_features(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, any width): what the image side makes of images by itself, to train it without texts."""
        return self.embed_image(self.encode_image(image))

    def prepare_image(self, image: I) -> I:
        """Adds to an image state what ``fuse`` needs of the image alone, such as cross-attention keys and values.

        Idempotent. `fuse` gives the same result without it; callers that fuse an image more than once call it once.
        """
        return image

    def embed_image(self, image: I) -> Tensor:
        """Image state -> (B, E) of unit L2 norm."""
        raise self._lacks(Can.EMBED)

    def embed_text(self, text: T) -> Tensor:
        """Text state -> (B, E) of unit L2 norm."""
        raise self._lacks(Can.EMBED)

    def fuse(self, image: I, text: T) -> Fused:
        """Row b of the image state with row b of the text state; the two batch sizes must be equal."""
        raise self._lacks(Can.FUSE)

    def fuse_pooled(self, image: I, text: T) -> Tensor:
        """``fuse(image, text).pooled`` (B, D) alone: what matching and ranking read. A model may spare the rest."""
        return self.fuse(image, text).pooled

    def decode(self, image: I, target: T, prompt: T | None = None) -> Tensor:
        """Next-token logits (B, L, V) for ``target``, causal; ``prompt`` is a question, None for captions.

        An architecture that has tokens of its own beside those of the texts adds their logits behind V.
        """
        raise self._lacks(Can.DECODE)

    def prepare_decode(self, image: I, prompt: T | None = None) -> Any:
        """What every `decode_step` of texts for these images reads."""
        return self.prepare_image(image), prompt

    def decode_step(self, source: Any, ids: Tensor, past: Any = None, *, beams: int = 1) -> tuple[Tensor, Any]:
        """Appends tokens to texts: their next-token logits, and the texts written by then.

        This one decodes all tokens anew at every step; a model that keeps keys and values overrides both methods.

        Args:
            source: from `prepare_decode`, B rows.
            ids: (B * beams, L) tokens to append, ``beams`` consecutive rows for each row of the source.
            past: what the step before returned, rows possibly gathered by `take`; None at the first step.
            beams: texts for each row of the source.

        Returns:
            (B * beams, L, V) logits, and ``past`` for the next step.
        """
        image, prompt = source
        written = ids if past is None else torch.cat([past, ids], dim=1)
        rows = torch.arange(len(ids), device=ids.device) // beams
        target = self.encode_text(Text(ids=written, mask=torch.ones_like(written, dtype=torch.bool)))
        logits = self.decode(take(image, rows), target, take(prompt, rows))
        return logits[:, -ids.shape[1] :], written

    def taught(self) -> VLModel[I, T]:
        """What a momentum teacher copies: the model, or less where it has parts that no teacher runs."""
        return self

    def word_embedding(self) -> nn.Embedding:
        """The table that maps token ids to vectors, for heads that tie their output weights to it."""
        raise NotImplementedError

    def mlm_head(self) -> nn.Module:
        """A new masked-token head, (M, D) -> (M, V), as the paper builds it (tied to the word table or not)."""
        raise self._lacks(Can.MASK)

    def structure(self) -> Structure:
        """Token counts, width and layers, read off the built modules."""
        raise NotImplementedError

    def component(self, parameter: str) -> str:
        """The component that the parameter of this name belongs to.

        Raises:
            KeyError: if no prefix in ``components`` covers it; the contract test makes sure that none is forgotten.
        """
        prefixes = [p for p in self.components if parameter == p or parameter.startswith(p + ".")]
        if not prefixes:
            raise KeyError(f"{type(self).__name__}.components has no prefix for parameter {parameter!r}")
        return self.components[max(prefixes, key=len)]

    def _lacks(self, what: Can) -> Unsupported:
        return Unsupported(f"{type(self).__name__} cannot {' or '.join(what.names())}")


class Pass(Generic[I, T]):
    """One model over one batch. Every encoding is computed at most once and shared by all objectives.

    Where both are wanted, text and masked text are encoded in one call: the same numbers from larger products.
    """

    def __init__(
        self, model: VLModel[I, T], batch: Batch, *, masked: Masked | None = None, negatives: Negatives | None = None
    ) -> None:
        self.model = model
        self.batch = batch
        self.masked = masked
        """The masked text, drawn by the caller, so that student and teacher see the same one."""
        self.negatives = negatives
        """Wrong partners, drawn by the caller; may be set once similarities are known."""
        self.hidden: HiddenPatches | None = None
        """Patches to predict, set by the caller where an objective predicts them."""
        self._known: dict[str, Any] = {}

    @property
    def size(self) -> int:
        """B."""
        return self.batch.image.shape[0]

    @property
    def image(self) -> I:
        """Image state of the batch."""
        return self.once("image", lambda: self.model.encode_image(self.batch.image))

    @property
    def image_prepared(self) -> I:
        """Image state ready to be fused many times."""
        return self.once("image_prepared", lambda: self.model.prepare_image(self.image))

    @property
    def text(self) -> T:
        """Text state of the batch."""
        return self.once("text", self._encode_text)

    @property
    def masked_text(self) -> T:
        """Text state of the masked text.

        Raises:
            ValueError: if the pass was given none.
        """
        return self.once("masked_text", self._encode_masked)

    @property
    def image_embed(self) -> Tensor:
        """(B, E)."""
        return self.once("image_embed", lambda: self.model.embed_image(self.image))

    @property
    def text_embed(self) -> Tensor:
        """(B, E)."""
        return self.once("text_embed", lambda: self.model.embed_text(self.text))

    @property
    def fused_pairs(self) -> Tensor:
        """Pooled pairs (3B, D): matching ones; text b with its negative image; image b with its negative text.

        Where the negatives say which images are replaced, (B, D): text b with its image or with its negative one.

        Raises:
            ValueError: if the pass was given no negatives.
        """
        return self.once("fused_pairs", lambda: self.model.fuse_pooled(*self.pairs()))

    @property
    def fused_masked(self) -> Fused:
        """The matching pairs with the masked text.

        Raises:
            ValueError: if the pass was given no masked text.
        """
        return self.once("fused_masked", lambda: self.model.fuse(self.image_prepared, self.masked_text))

    def once(self, name: str, compute: Callable[[], R]) -> R:
        """The result of ``compute``, run the first time that ``name`` is asked for."""
        if name not in self._known:
            self._known[name] = compute()
        return self._known[name]

    def _encode_text(self) -> T:
        if self.masked is None or "masked_text" in self._known:
            return self.model.encode_text(self.batch.text)
        plain, masked = self.batch.text, self.masked.text
        both = Text(ids=torch.cat([plain.ids, masked.ids]), mask=torch.cat([plain.mask, masked.mask]))
        return take(self.once("both_texts", lambda: self.model.encode_text(both)), self._rows())

    def _encode_masked(self) -> T:
        if self.masked is None:
            raise ValueError("this pass was given no masked text; pass `masked=` to use a masked objective")
        if "both_texts" in self._known:
            return take(self._known["both_texts"], self._rows() + self.size)
        return self.model.encode_text(self.masked.text)

    def pairs(self) -> tuple[I, T]:
        """Image and text states of `fused_pairs`, before fusion."""
        if self.negatives is None:
            raise ValueError("this pass was given no negatives; pass `negatives=` to use a matching objective")
        own, negatives = self._rows(), self.negatives
        if negatives.replaced is not None:
            return take(self.image_prepared, torch.where(negatives.replaced, negatives.image, own)), self.text
        images = take(self.image_prepared, torch.cat([own, negatives.image, own]))
        return images, take(self.text, torch.cat([own, own, negatives.text]))

    def _rows(self) -> Tensor:
        return torch.arange(self.size, device=self.batch.image.device)


def parameter_count(module: nn.Module) -> int:
    """Parameters stored, each tied tensor once."""
    return sum(p.numel() for p in module.parameters())
