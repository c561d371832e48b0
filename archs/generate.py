"""Writing text with any model that decodes: greedily, by beam search, by chance, and choosing among given texts.

What writes is a `vlpbench.archs.model.VLModel` that can DECODE or a task model with a `decode_step` like its. With keys
and values kept between the steps (`decode_step` overridden) or without, the text is the same.

Shape letters: B images (or questions), K beams or candidates, L tokens, A given answers, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from vlpbench.archs.model import take
from vlpbench.archs.objectives.base import at_least_float32
from vlpbench.archs.objectives.lm import text_loss
from vlpbench.archs.types import Text


class Writer(Protocol):
    """See `vlpbench.archs.model.VLModel.decode_step`."""

    def decode_step(self, source: Any, ids: Tensor, past: Any = None, *, beams: int = 1) -> tuple[Tensor, Any]:
        """Next-token logits of texts that grow by ``ids``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How to write; the defaults are greedy. BLIP's are 3 beams for answers and captions."""

    end: int
    """Token that ends a text."""
    pad: int
    max_len: int
    """Longest text in tokens, its given start and ``end`` included."""
    min_len: int = 1
    """Tokens that come before ``end`` at least, the given start included."""
    beams: int = 1
    length_penalty: float = 1.0
    """Finished texts are compared by their log-likelihood over their length to this power."""
    words: int | None = None
    """Ids below this may be written; None is all. A model's own tokens, behind a vocabulary, are no words."""

    def __post_init__(self) -> None:
        if self.beams < 1 or self.max_len < 2:
            raise ValueError(f"{self.beams} beams of {self.max_len} tokens write nothing; take at least 1 of 2")


@dataclass(frozen=True, kw_only=True)
class Written:
    """The best text for each image."""

    text: Text
    """(B, L), right-padded, with the given start; the end token is part of it unless the length ran out."""
    score: Tensor
    """(B,) log-likelihood over length to the power of the length penalty."""


@torch.no_grad()
def generate(model: Writer, source: Any, start: Tensor, how: Writing) -> Written:
    """Writes a text for each image.

    Args:
        model: in evaluation mode.
        source: what the model's ``prepare_decode`` made of B images.
        start: (B, L) first tokens, the start token or with words behind it ("a picture of"), without padding.
        how: beams, length, end.

    Raises:
        ValueError: if the start is as long as the text may be.
    """
    size, given = start.shape
    if given >= how.max_len:
        raise ValueError(f"{given} tokens to start with leave no room in texts of {how.max_len}; raise max_len")
    logits, past = model.decode_step(source, start)
    search = _Search(start, how)
    # All beams of an image start as one: the step over the start is not repeated for each of them.
    past = take(past, torch.arange(size, device=start.device).repeat_interleave(how.beams))
    logits = logits[:, -1].repeat_interleave(how.beams, dim=0)
    while True:
        rows, token = search.advance(logits)
        if search.over():
            return search.best()
        logits, past = model.decode_step(source, token[:, None], take(past, rows), beams=how.beams)
        logits = logits[:, -1]


@torch.no_grad()
def sample(
    model: Writer,
    source: Any,
    start: Tensor,
    how: Writing,
    *,
    top: float = 0.9,
    generator: torch.Generator | None = None,
) -> Written:
    """Draws a text for each image, token by token from the nucleus (Holtzman et al., 2020, arXiv:1904.09751).

    Args:
        model: in evaluation mode.
        source: what the model's ``prepare_decode`` made of B images.
        start: (B, L) first tokens, without padding.
        how: length and end; its beams and length penalty play no part.
        top: the likeliest tokens that together reach this probability are drawn from; BLIP's captioner takes 0.9.
        generator: draws, on its own device: the CPU for reproducible texts.

    Returns:
        The texts, and as their scores log-likelihoods.

    Raises:
        ValueError: if the start is as long as the text may be.
    """
    if start.shape[1] >= how.max_len:
        raise ValueError(f"{start.shape[1]} tokens to start with leave no room in texts of {how.max_len}")
    ids, score = start, torch.zeros(len(start), device=start.device)
    going = torch.ones_like(score, dtype=torch.bool)
    logits, past = model.decode_step(source, start)
    while True:
        likely = log_likelihood(logits[:, -1], how, written=ids.shape[1])
        token = _draw(likely, top, generator)
        score = score + likely.gather(1, token[:, None])[:, 0].masked_fill(~going, 0.0)
        token = token.masked_fill(~going, how.pad)
        ids, going = torch.cat([ids, token[:, None]], dim=1), going & (token != how.end)
        if ids.shape[1] >= how.max_len or not going.any():
            break
        logits, past = model.decode_step(source, token[:, None], past)
    ends = (ids == how.end).int()
    ends[:, : start.shape[1]] = 0
    return Written(text=Text(ids=ids, mask=ends.cumsum(dim=1) - ends == 0), score=score)


def _draw(likely: Tensor, top: float, generator: torch.Generator | None) -> Tensor:
    """(B,) tokens out of the nuclei of log-likelihoods (B, V)."""
    ordered, token = likely.sort(dim=1, descending=True, stable=True)
    probability = ordered.exp()
    # A token belongs to the nucleus if those before it do not fill it; the likeliest always does.
    outside = probability.cumsum(dim=1) - probability >= top
    device = likely.device if generator is None else generator.device
    race = torch.empty(likely.shape, device=device).exponential_(generator=generator).log_().to(likely.device)
    chosen = (ordered.masked_fill(outside, -torch.inf) - race).argmax(dim=1)
    return token.gather(1, chosen[:, None])[:, 0]


def log_likelihood(logits: Tensor, how: Writing, *, written: int) -> Tensor:
    """(R, V) of the next token behind ``written`` others, -inf for what may not come."""
    found = at_least_float32(logits).log_softmax(dim=-1)
    if how.words is not None:
        found[:, how.words :] = -torch.inf
    if written < how.min_len:
        found[:, how.end] = -torch.inf
    return found


class _Search:
    """K unfinished texts and up to K finished ones for each of B images; one beam is greedy."""

    def __init__(self, start: Tensor, how: Writing) -> None:
        size, beams, device = len(start), how.beams, start.device
        self.how = how
        self.ids = start[:, None].expand(-1, beams, -1)  # (B, K, L) so far
        self.score = torch.full((size, beams), -torch.inf, device=device)
        self.score[:, 0] = 0.0  # the others are copies
        self.ended = start.new_full((size, beams, how.max_len), how.pad)  # finished texts
        self.ended_score = torch.full((size, beams), -torch.inf, device=device)
        self.done = torch.zeros(size, dtype=torch.bool, device=device)

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Takes logits (B * K, V) of all texts one token further.

        Returns:
            (B * K,) which row each text continues, and the token it got.
        """
        size, beams, length = self.ids.shape
        total = self.score[..., None] + log_likelihood(logits, self.how, written=length).view(size, beams, -1)
        # An image's K texts end at most once each, so 2K candidates hold K that go on.
        best, index = total.flatten(1).topk(2 * beams, dim=1)
        parent, token = index // total.shape[2], index % total.shape[2]
        ends = token == self.how.end
        self._finish(best.masked_fill(~ends | self._beyond(ends), -torch.inf), parent)
        finished = self.ended_score.amin(dim=1)
        self.done |= finished >= best[:, 0] / length**self.how.length_penalty
        self.score, kept = best.masked_fill(ends, -torch.inf).topk(beams, dim=1)
        parent, token = parent.gather(1, kept), token.gather(1, kept)
        self.ids = torch.cat([self._rows(self.ids, parent), token[..., None]], dim=2)
        first = torch.arange(size, device=parent.device)[:, None] * beams
        return (parent + first).flatten(), token.flatten()

    def over(self) -> bool:
        """Whether no text can get better or longer."""
        return self.ids.shape[2] >= self.how.max_len or bool(self.done.all())

    def best(self) -> Written:
        """What is unfinished counts where nothing is settled."""
        length = self.ids.shape[2]
        running = (self.score / length**self.how.length_penalty).masked_fill(self.done[:, None], -torch.inf)
        score, index = torch.cat([self.ended_score, running], dim=1).max(dim=1)
        ids = torch.cat([self.ended, F.pad(self.ids, (0, self.how.max_len - length), value=self.how.pad)], dim=1)
        ids = ids.gather(1, index[:, None, None].expand(-1, 1, ids.shape[2]))[:, 0]
        ends = (ids == self.how.end).int()
        mask = ends.cumsum(dim=1) - ends == 0
        mask &= torch.arange(ids.shape[1], device=ids.device) < torch.where(
            index < self.ended_score.shape[1], ids.shape[1], length
        ).unsqueeze(1)
        longest = int(mask.sum(dim=1).max())
        return Written(text=Text(ids=ids[:, :longest], mask=mask[:, :longest]), score=score)

    def _beyond(self, ends: Tensor) -> Tensor:
        """Candidates that rank behind the K best do not end a text: another that goes on is likelier."""
        return torch.arange(ends.shape[1], device=ends.device) >= self.how.beams

    def _finish(self, score: Tensor, parent: Tensor) -> None:
        """Keeps the K best of the finished texts and of those that end now, with scores (B, 2K) or -inf."""
        length = self.ids.shape[2]
        score = (score / length**self.how.length_penalty).masked_fill(self.done[:, None], -torch.inf)
        texts = F.pad(self._rows(self.ids, parent), (0, 1), value=self.how.end)
        texts = F.pad(texts, (0, self.how.max_len - length - 1), value=self.how.pad)
        texts = torch.cat([self.ended, texts], dim=1)
        self.ended_score, kept = torch.cat([self.ended_score, score], dim=1).topk(self.how.beams, dim=1)
        self.ended = self._rows(texts, kept)

    @staticmethod
    def _rows(texts: Tensor, index: Tensor) -> Tensor:
        return texts.gather(1, index[..., None].expand(-1, -1, texts.shape[2]))


@torch.no_grad()
def rank(
    model: Writer, source: Any, answers: Text, *, size: int, k: int | None = None, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The likeliest of a closed list of answers for each image, best first (BLIP and ALBEF, VQA by ranking).

    Args:
        model: in evaluation mode.
        source: what the model's ``prepare_decode`` made of B images (and questions).
        answers: (A, L), each with a start and an end token.
        size: B.
        k: only the answers with the k likeliest first tokens are scored in full; None scores all.
        smoothing: label smoothing of the score; the released BLIP ranks with that of its training, 0.1.

    Returns:
        (B, k) rows of ``answers``, and the log-likelihoods of their tokens after the first.

    Raises:
        ValueError: for more candidates than answers.
    """
    listed = len(answers.ids)
    k = listed if k is None else k
    if k > listed:
        raise ValueError(f"cannot rank {k} of {listed} answers; lower k")
    opening, _ = model.decode_step(source, answers.ids[:1, :1].expand(size, 1))
    first = at_least_float32(opening[:, 0]).log_softmax(dim=1).index_select(1, answers.ids[:, 1])
    rows = first.topk(k, dim=1).indices
    candidates = take(answers, rows.flatten())
    logits, _ = model.decode_step(source, candidates.ids[:, :-1], beams=k)
    score = -text_loss(logits, candidates, smoothing).view(size, k)
    score, order = score.sort(dim=1, descending=True, stable=True)
    return rows.gather(1, order), score
