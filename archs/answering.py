"""Decoders for answers of architectures whose papers give VQA a decoder of its own, put on a pre-trained model.

They start from the model's weights, as the released code does. An architecture that decodes behind a prompt needs none:
it is an `Answerer` by itself.

Shape letters: B images and questions, R answers (B times beams), L tokens, D width, V vocabulary.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from vlpbench.archs.albef import Albef, ImageState, TextState
from vlpbench.archs.albef_tasks import AnswerDecoder
from vlpbench.archs.blip import Blip
from vlpbench.archs.blip import ImageState as BlipImage
from vlpbench.archs.blip_text import DecoderSource, Past, led_by
from vlpbench.archs.generate import Writer
from vlpbench.archs.types import Text, Unsupported


class Answerer(Writer, Protocol):
    """Writes answers; `vlpbench.archs.model.VLModel` has the methods of one that decodes."""

    def prepare_decode(self, image: Any, prompt: Any) -> Any:
        """The model's states of B images and B questions -> what `decode_step` reads."""
        ...


class AlbefAnswerer(nn.Module):
    """ALBEF's answer decoder (section 4): BERT layers that attend to the fused states of the question.

    Embeddings and layers start as the model's fusion layers; what differs in shape, the keys and values of an image of
    another width, and the head start anew.
    """

    def __init__(self, model: Albef) -> None:
        super().__init__()
        self.model = model
        config, bert = model.config, model.text_encoder
        self.decoder = AnswerDecoder(replace(config, text_layers=0, image_width=config.width))
        own = self.decoder.bert
        own.embeddings.load_state_dict(bert.embeddings.state_dict())
        for layer, fusing in zip(own.layers, bert.layers[bert.text_layers :], strict=True):
            state = layer.state_dict()
            fits = {name: value for name, value in fusing.state_dict().items() if value.shape == state[name].shape}
            layer.load_state_dict(state | fits)

    def prepare_decode(self, image: ImageState, prompt: TextState) -> tuple[Tensor, Tensor]:
        """Fused states (B, L, D) of the questions, and their mask."""
        bert = self.model.text_encoder
        return bert.fuse(prompt, self.model.prepare_image(image).keys_values or ()), prompt.mask

    def decode_step(
        self, source: tuple[Tensor, Tensor], ids: Tensor, past: Tensor | None = None, *, beams: int = 1
    ) -> tuple[Tensor, Tensor]:
        """See `vlpbench.archs.model.VLModel`; keeps nothing but the tokens, as answers are a few of them."""
        written = ids if past is None else torch.cat([past, ids], dim=1)
        answer = Text(ids=written, mask=torch.ones_like(written, dtype=torch.bool))
        owner = torch.arange(len(ids), device=ids.device) // beams
        return self.decoder(answer, *source, owner)[:, -ids.shape[1] :], written


class BlipAnswerer(nn.Module):
    """BLIP's answer decoder (section 5.4): a copy of the model's decoder that reads the fused states of the question.

    It shares no weight with the encoder any more.
    """

    def __init__(self, model: Blip) -> None:
        """Raises `Unsupported` where images and texts differ in width, so that the decoder cannot read texts."""
        super().__init__()
        width = model.vision_proj.in_features
        if width != model.width:
            raise Unsupported(
                f"the decoder reads images {width} wide and cannot read a question {model.width} wide; "
                "blip_tasks.Answering starts its own anew"
            )
        self.model = model
        self.decoder = copy.deepcopy(model.text_decoder)

    def prepare_decode(self, image: BlipImage, prompt: Text) -> DecoderSource:
        """Keys and values of the fused question."""
        states = self.model.ground(image, prompt)
        return DecoderSource(keys_values=self.decoder.bert.keys_values(states), mask=prompt.mask)

    def decode_step(
        self, source: DecoderSource, ids: Tensor, past: Past | None = None, *, beams: int = 1
    ) -> tuple[Tensor, Past]:
        """See `vlpbench.archs.model.VLModel`."""
        start = led_by(self.model.decoder_token, ids) if past is None else ids
        return self.decoder(source, start, past, beams=beams)


def albef(model: Albef) -> Answerer:
    """On ALBEF."""
    return AlbefAnswerer(model)


def blip(model: Blip) -> Answerer:
    """On BLIP."""
    return BlipAnswerer(model)
