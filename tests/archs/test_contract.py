"""Every registered architecture keeps the contract; models broken in one place fail in that place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from vlpbench.archs import registry
from vlpbench.archs.contract import ContractError, check, check_model
from vlpbench.archs.contract_clauses import CLAUSES
from vlpbench.archs.model import VLModel
from vlpbench.archs.types import Can, Fused, Structure, Text

EMBEDS = [name for name, spec in registry.specs().items() if Can.EMBED in spec.can and Can.FUSE not in spec.can]
NAMES = [*registry.specs(), *(name + registry.LATE for name in EMBEDS)]
ALL = Can.EMBED | Can.FUSE | Can.MASK | Can.DECODE


@pytest.mark.parametrize("name", NAMES)
def test_every_registered_architecture_keeps_the_contract(name: str) -> None:
    check(name)


def test_check_refuses_an_unknown_size() -> None:
    with pytest.raises(registry.UnknownName, match="did you mean 'tiny'"):
        check("clip", "tinny")


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    image_size: tuple[int, int] = (4, 4)
    text_len: int = 6
    vocab_size: int = 11


class Toy(VLModel[Tensor, dict[str, Tensor]]):
    """Can do everything, with one attention over [image; text]; keeps the contract."""

    can = ALL
    components: ClassVar[Mapping[str, str]] = {
        "see": "image",
        "words": "embedding",
        "attend": "fusion",
        "project": "projection",
        "predict": "head",
    }

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.image_size, self.text_len, self.vocab_size = config.image_size, config.text_len, config.vocab_size
        self.width, self.embed_dim = 8, 5
        self.see = nn.Conv2d(3, 8, 2, stride=2)
        self.words = nn.Embedding(config.vocab_size, 8)
        self.attend = nn.Linear(8, 24)
        self.project = nn.Linear(8, 5)
        self.predict = nn.Linear(8, config.vocab_size)

    def encode_image(self, image: Tensor) -> Tensor:
        return self.see(image).flatten(2).transpose(1, 2)

    def encode_text(self, text: Text) -> dict[str, Tensor]:
        return {"x": self.words(text.ids), "mask": text.mask}

    def embed_image(self, image: Tensor) -> Tensor:
        return F.normalize(self.project(image.mean(1)), dim=-1)

    def embed_text(self, text: dict[str, Tensor]) -> Tensor:
        mean = (text["x"] * text["mask"][..., None]).sum(1) / text["mask"].sum(1, keepdim=True)
        return F.normalize(self.project(mean), dim=-1)

    def joint(self, image: Tensor, text: dict[str, Tensor], *, causal: bool) -> Tensor:
        N, L = image.shape[1], text["x"].shape[1]
        x = torch.cat([image, text["x"]], dim=1)
        seen = torch.cat([text["mask"].new_ones(len(x), N), text["mask"]], dim=1)[:, None].expand(-1, N + L, -1)
        if causal:
            seen = seen & torch.ones(N + L, N + L, dtype=torch.bool, device=x.device).tril()
        q, k, v = self.attend(x).chunk(3, dim=-1)
        return (x + F.scaled_dot_product_attention(q, k, v, attn_mask=seen))[:, N:]

    def fuse(self, image: Tensor, text: dict[str, Tensor]) -> Fused:
        x = self.joint(image, text, causal=False)
        return Fused(pooled=x[:, 0], text=x)

    def decode(self, image: Tensor, target: dict[str, Tensor], prompt: dict[str, Tensor] | None = None) -> Tensor:
        return self.predict(self.joint(image, target, causal=True))

    def word_embedding(self) -> nn.Embedding:
        return self.words

    def mlm_head(self) -> nn.Module:
        return nn.Linear(self.width, self.vocab_size)

    def structure(self) -> Structure:
        return Structure(
            image_tokens=4, text_tokens=self.text_len, width=8, image_layers=0, text_layers=0, fusion_layers=1
        )


def build(cls: type[Toy], changes: Mapping[str, Any]) -> Toy:
    return cls(registry.changed(ToyConfig(), changes, owner="toy"))


def test_a_faithful_toy_passes() -> None:
    check_model(lambda changes: build(Toy, changes), ALL)


class AlwaysReal(Toy):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.predict = nn.Linear(8, config.vocab_size, device="cpu")


class Unseeded(Toy):
    count = 0

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        Unseeded.count += 1
        nn.init.constant_(self.predict.bias, Unseeded.count)


class Undeclared(Toy):
    can = ALL & ~Can.MASK


class Misdeclared(Toy):
    can = Can.EMBED


class WrongWidth(Toy):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.width = 7


class DropsText(Toy):
    def fuse(self, image: Tensor, text: dict[str, Tensor]) -> Fused:
        return Fused(pooled=super().fuse(image, text).pooled, text=None)


class Unnormalised(Toy):
    def embed_text(self, text: dict[str, Tensor]) -> Tensor:
        return 2 * super().embed_text(text)


class BatchMean(Toy):
    def fuse(self, image: Tensor, text: dict[str, Tensor]) -> Fused:
        x = self.joint(image, text, causal=False)
        return Fused(pooled=x[:, 0] - x[:, 0].mean(0), text=x)


class SeesPadding(Toy):
    def encode_text(self, text: Text) -> dict[str, Tensor]:
        return {"x": self.words(text.ids), "mask": torch.ones_like(text.mask)}


class CountsPositions(Toy):
    """Padding ids do not matter, but how many there are does."""

    def encode_text(self, text: Text) -> dict[str, Tensor]:
        return {"x": self.words(text.ids) + text.ids.shape[1], "mask": text.mask}


class Dropping(Toy):
    def encode_image(self, image: Tensor) -> Tensor:
        return F.dropout(super().encode_image(image), training=True)


class Counting(Toy):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))

    def encode_image(self, image: Tensor) -> Tensor:
        self.calls.add_(1)
        return super().encode_image(image)


class BatchLast(Toy):
    """The state's text axis comes first, so gathering rows gathers tokens."""

    def encode_text(self, text: Text) -> dict[str, Tensor]:
        return {"x": self.words(text.ids).transpose(0, 1), "mask": text.mask}

    def embed_text(self, text: dict[str, Tensor]) -> Tensor:
        return super().embed_text(text | {"x": text["x"].transpose(0, 1)})

    def joint(self, image: Tensor, text: dict[str, Tensor], *, causal: bool) -> Tensor:
        return super().joint(image, text | {"x": text["x"].transpose(0, 1)}, causal=causal)


class PreparesTwice(Toy):
    def prepare_image(self, image: Tensor) -> Tensor:
        return image + 1


class Blind(Toy):
    def fuse(self, image: Tensor, text: dict[str, Tensor]) -> Fused:
        return super().fuse(torch.zeros_like(image), text)


class OneSided(Toy):
    def fuse(self, image: Tensor, text: dict[str, Tensor]) -> Fused:
        x = self.joint(image, text, causal=True)
        return Fused(pooled=x[:, 0], text=x)


class Foresighted(Toy):
    def decode(self, image: Tensor, target: dict[str, Tensor], prompt: dict[str, Tensor] | None = None) -> Tensor:
        return self.predict(self.joint(image, target, causal=False))


class Forgetful(Toy):
    """Each step decodes what it is given and forgets what came before."""

    def decode_step(self, source: Any, ids: Tensor, past: Any = None, *, beams: int = 1) -> tuple[Tensor, Any]:
        return super().decode_step(source, ids, None, beams=beams)


class Homeless(Toy):
    components: ClassVar[Mapping[str, str]] = {
        "see": "image",
        "words": "embedding",
        "attend": "fusion",
        "project": "projection",
    }


class Layerless(Toy):
    def structure(self) -> Structure:
        return Structure(image_tokens=4, text_tokens=6, width=8, image_layers=0, text_layers=0, fusion_layers=0)


class Temperature(Toy):
    components: ClassVar[Mapping[str, str]] = {**Toy.components, "temperature": "head"}

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.temperature = nn.Parameter(torch.ones(()))


class FixedVocabulary(Toy):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.words = nn.Embedding(11, 8)


class Overflowing(Toy):
    def embed_image(self, image: Tensor) -> Tensor:
        # Fine in float32; the projection comes out in bfloat16 under autocast.
        projected = self.project(image.mean(1))
        return F.normalize(projected, dim=-1) if projected.dtype == torch.float32 else projected / 0


BROKEN: tuple[tuple[type[Toy], str, str], ...] = (
    (AlwaysReal, "builds", "predict.weight is on cpu"),
    (Unseeded, "builds", "the same seed gives another predict.bias"),
    (Misdeclared, "declares", "registered as EMBED|FUSE|MASK|DECODE, built as EMBED"),
    (WrongWidth, "works", r"pooled has shape \(4, 8\), not \(4, 7\)"),
    (DropsText, "works", "MASK is declared, and there is no fused text"),
    (Unnormalised, "unit_norm", "embed_text has norms"),
    (BatchMean, "rows", "pooled of rows"),
    (SeesPadding, "padding", "with other ids at padding"),
    (CountsPositions, "padding", "when padding is cut off"),
    (Dropping, "rows", "embed_image of rows"),
    (Counting, "deterministic", "a forward in evaluation mode changes calls"),
    (BatchLast, "takes", "RuntimeError: .* .while checking: States are gathered"),
    (PreparesTwice, "prepares", "after prepare_image differs"),
    (Blind, "joint", "pooled does not depend on the image"),
    (OneSided, "direction", "do not see the token after them"),
    (Foresighted, "direction", "lets a prediction see a later token"),
    (Forgetful, "steps", "decode_step differs from decode"),
    (Homeless, "components", "no prefix for parameter 'predict"),
    (Layerless, "structure", "fusion layers"),
    (Temperature, "gradients", "no capability uses temperature"),
    (FixedVocabulary, "configurable", "word_embedding has 11 rows for a vocabulary of 16"),
    (Overflowing, "low_precision", "embed_image is not finite"),
)


@pytest.mark.parametrize(("cls", "clause", "finding"), BROKEN, ids=[cls.__name__ for cls, _, _ in BROKEN])
def test_a_broken_toy_fails_in_its_clause(cls: type[Toy], clause: str, finding: str) -> None:
    with pytest.raises(ContractError, match=finding) as raised:
        check_model(lambda changes: build(cls, changes), ALL)
    assert raised.value.clause == clause
    assert str(raised.value).startswith(clause + ": ")


def test_an_undeclared_capability_must_raise() -> None:
    with pytest.raises(ContractError, match="MASK is not declared, and mlm_head does not raise") as raised:
        check_model(lambda changes: build(Undeclared, changes), Undeclared.can)
    assert raised.value.clause == "refuses"


def test_an_unknown_field_must_be_refused() -> None:
    def forgiving(changes: Mapping[str, Any]) -> Toy:
        return build(Toy, {name: value for name, value in changes.items() if name != "no_such_field"})

    with pytest.raises(ContractError, match="an unknown field") as raised:
        check_model(forgiving, ALL)
    assert raised.value.clause == "configurable"


def test_every_clause_has_a_toy_that_breaks_it() -> None:
    assert {clause.__name__ for clause in CLAUSES} == {clause for _, clause, _ in BROKEN} | {"refuses"}
