"""The thing a cell measures: a model built with random weights, its inputs, and the state of torch it runs under.

Shape letters: B batch, L text tokens, H image height, W image width.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import psutil
import torch
from vlpbench.archs import registry
from vlpbench.archs.model import VLModel
from vlpbench.archs.types import Batch, Can, Masked, Negatives, Text
from vlpbench.benchmarks import schedule, settings, weights
from vlpbench.benchmarks.init import tiled_init
from vlpbench.benchmarks.measures import base as measures
from vlpbench.benchmarks.train import open_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from torch import Tensor
    from vlpbench.archs.learner import Draws, Learner, Recipe, SpecialTokens
    from vlpbench.archs.registry import ArchSpec
    from vlpbench.benchmarks.data.base import Geometry
    from vlpbench.results.record import Cell

ROTATED_BYTES = 256 * 2**20
"""The rotating inputs together stay under this, so that they never decide a peak of memory."""


@dataclass(kw_only=True)
class Subject:
    """A built model with the inputs and the settings of one cell."""

    cell: Cell
    spec: ArchSpec
    model: VLModel[Any, Any]
    device: torch.device
    tokens: SpecialTokens
    baseline: int
    """Resident bytes of the process after the model's code was imported and before its weights were allocated."""
    loaded: dict[str, Any] | None = None
    """What became of the weights that the cell names, once a learner was made."""

    def __post_init__(self) -> None:
        self.compiled = self.cell.compile and self.device.type != "meta"
        self._forward: Callable[[Batch], tuple[Tensor, ...]] = self._infer
        if self.compiled:
            self._forward = torch.compile(self._infer)

    @classmethod
    def build(cls, cell: Cell, *, meta: bool = False) -> Subject:
        """Builds the cell's architecture, in evaluation mode, with weights drawn from the cell's seed.

        Args:
            cell: ``image`` and ``text_len`` replace the architecture's own; a data set's geometry comes in between.
            meta: shapes without memory, to count with.

        Raises:
            Unsupported: for a device or a type that this machine cannot run.
            UnknownName: for an unknown architecture, size or configuration field.
        """
        device = torch.device("meta") if meta else settings.usable(cell)
        geometry = _geometry(cell)
        changes = weights.configuration(cell, geometry)
        if measures.spec(cell.measure).kind == "memory" and not meta:
            _import_everything(cell, changes)
        baseline = psutil.Process().memory_info().rss
        # Trained weights matter to accuracy alone; what a step costs does not depend on their values.
        true = meta or measures.spec(cell.measure).kind == "accuracy"
        draws = nullcontext() if true else tiled_init()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device, draws:
            torch.manual_seed(cell.seed)
            model = registry.build(cell.arch, cell.size, changes).eval()
        if cell.channels_last:
            model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # a form of `to`
        return cls(
            cell=cell,
            spec=registry.get(cell.arch),
            model=model,
            device=device,
            tokens=special_tokens(geometry, vocab_size=model.vocab_size),
            baseline=baseline,
        )

    @cached_property
    def batches(self) -> list[Batch]:
        """Several random batches of the cell's size, on the device, every text of full length."""
        count = max(2, min(4, ROTATED_BYTES // (self.cell.batch * math.prod(self.model.image_shape) * 4)))
        generator = torch.Generator().manual_seed(self.cell.seed)
        return [self._draw(number, generator) for number in range(count)]

    def batch(self) -> Batch:
        """The next of `batches`, round and round, so that no cache holds the last call's input."""
        return next(self._rotation)

    def prepare(self) -> None:
        """Makes the inputs and waits until they are on the device, before any clock runs."""
        if self.batches and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        """The inference of matching pairs, in the cell's type: encode, embed where it can, fuse where it can.

        Gradients follow the caller's mode: `torch.inference_mode` to time an inference.

        Returns:
            Embeddings of image and text, pooled and per-token fused state; those that the architecture has.
        """
        with self.autocast():
            return self._forward(batch)

    def learner(self) -> Learner:
        """The model with the cell's objectives and momentum, in training mode, on the device.

        A cell's own weights are loaded into model and heads; a momentum copy starts as they do.

        Raises:
            CheckpointError: for weights that do not fit, key by key.
            Unsupported: for a combination that the architecture cannot train.
        """
        from vlpbench.archs.learner import Learner

        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []), self.device:
            torch.manual_seed(self.cell.seed)
            learner = Learner(self.model, recipe_of(self.cell), self.tokens).train()
        if (brought := weights.opened(self.cell)) is not None:
            self.loaded = {"name": self.cell.checkpoint} | brought.load(learner).detail()
        if self.compiled:
            compile_verbs(learner)
        return learner

    def draws(self, learner: Learner, batch: Batch) -> Draws:
        """The masked tokens of a training step, which a data loader would draw beside the step; the rest stays open.

        On meta there is no token to look at: as many are masked as are expected to be, and negatives are given too, so
        that a batch of one can be counted.
        """
        from vlpbench.archs.learner import Draws

        masks = any(objective.masks for objective in learner.objectives.values())
        if self.device.type == "meta":
            row = torch.empty(len(batch.image), dtype=torch.long, device="meta")
            masked = _expected_masks(batch.text, learner.recipe.mlm_probability) if masks else None
            replaced = row.bool() if learner.recipe.negatives == "replace" else None
            return Draws(masked=masked, negatives=Negatives(image=row, text=row, replaced=replaced))
        if not masks:
            return Draws()
        on_cpu = Text(ids=batch.text.ids.cpu(), mask=batch.text.mask.cpu())
        generator = torch.Generator().manual_seed(self.cell.seed)
        masked = learner.mask(on_cpu, generator)
        return Draws(
            masked=Masked(
                text=Text(ids=masked.text.ids.to(self.device), mask=batch.text.mask.to(self.device)),
                position=masked.position.to(self.device),
                label=masked.label.to(self.device),
            )
        )

    def autocast(self) -> torch.autocast:
        """Mixed precision in the cell's type. Entered anew for every step, see `settings.autocast`."""
        return settings.autocast(self.cell, self.device)

    def settings(self) -> AbstractContextManager[None]:
        """Everything global in torch that decides a cost, set from the cell and put back at the end."""
        return settings.applied(self.cell, self.device)

    @cached_property
    def _rotation(self) -> Iterator[Batch]:
        return itertools.cycle(self.batches)

    def _infer(self, batch: Batch) -> tuple[Tensor, ...]:
        model, outputs = self.model, []
        image, text = model.encode_image(batch.image), model.encode_text(batch.text)
        if Can.EMBED in model.can:
            outputs += [model.embed_image(image), model.embed_text(text)]
        if Can.FUSE in model.can:
            fused = model.fuse(image, text)
            outputs += [fused.pooled, *([] if fused.text is None else [fused.text])]
        return tuple(outputs)

    def _draw(self, number: int, generator: torch.Generator) -> Batch:
        rows, length, tokens = self.cell.batch, self.model.text_len, self.tokens
        # Drawn on the CPU, so that every device is given the same inputs; meta has no values to draw.
        source: dict[str, Any] = {"device": "meta"} if self.device.type == "meta" else {"generator": generator}
        ids = torch.randint(*_words(tokens), (rows, length), **source)
        ids[:, 0] = tokens.cls
        if tokens.sep is not None:
            ids[:, -1] = tokens.sep
        image = torch.randn(rows, *self.model.image_shape, **source)  # regions too: what boxes say costs nothing
        return Batch(
            image=image.to(self.device, memory_format=_order(self.cell, image)),
            text=Text(ids=ids.to(self.device), mask=torch.ones(rows, length, dtype=torch.bool, device=self.device)),
            sample_id=torch.arange(number * rows, (number + 1) * rows).to(self.device),
        )


def recipe_of(cell: Cell) -> Recipe:
    """How the cell trains; what it leaves open is the default of its architecture (objectives) or size (the rest)."""
    from vlpbench.archs.learner import Recipe

    row = schedule.defaults(cell.size)
    return Recipe(
        objectives=cell.objectives or registry.get(cell.arch).objectives,
        weights=cell.weights,
        momentum=cell.momentum,
        distilled=cell.distilled,
        negatives=cell.negatives,
        queue_size=row.queue_size if cell.queue_size is None else cell.queue_size,
        momentum_rate=row.momentum_rate if cell.momentum_rate is None else cell.momentum_rate,
        alpha=row.alpha if cell.alpha is None else cell.alpha,
        mlm_probability=row.mlm_probability,
        whole_words=cell.whole_words,
        positives=cell.positives,
        temperature=row.temperature,
        hinge_warmup=0 if cell.code == "official" else schedule.warmup_steps(row, cell.budget),
        label_smoothing=cell.label_smoothing,
        code=cell.code,
    )


def special_tokens(geometry: Geometry | None, *, vocab_size: int) -> SpecialTokens:
    """Ids of a data source, or for random text BERT's where the vocabulary holds them and the first four where not."""
    from vlpbench.archs.learner import SpecialTokens

    if geometry is not None:
        names = [field.name for field in dataclasses.fields(SpecialTokens)]
        return SpecialTokens(**{name: getattr(geometry, name) for name in names})
    first = 100 if vocab_size > 1000 else 0
    return SpecialTokens(pad=0, cls=first + 1, sep=first + 2, mask=first + 3, vocab_size=vocab_size)


def compile_verbs(learner: Learner) -> None:
    """Compiles the methods of the interface on the student and on the teacher, each for itself."""
    models: list[Any] = [module for module in learner.modules() if isinstance(module, VLModel)]
    for model in models:
        for verb in (
            "encode_image",
            "encode_text",
            "prepare_image",
            "embed_image",
            "embed_text",
            "fuse",
            "fuse_pooled",
        ):
            setattr(model, verb, torch.compile(getattr(model, verb)))


def _expected_masks(text: Text, probability: float) -> Masked:
    """As many masked tokens as are drawn on average; every token but the first may be."""
    rows, length = text.ids.shape
    position = torch.empty(max(1, round(probability * rows * (length - 1))), dtype=torch.long, device="meta")
    return Masked(text=text, position=position, label=position)


def _order(cell: Cell, image: Tensor) -> torch.memory_format:
    """How images lie in memory; regions have no channels."""
    return torch.channels_last if cell.channels_last and image.ndim == 4 else torch.contiguous_format


def _words(tokens: SpecialTokens) -> tuple[int, int]:
    """First id, and the one behind the last, of the longest run without a special token, wherever those stand."""
    special = {
        tokens.pad,
        tokens.cls,
        tokens.mask,
        -1,
        tokens.vocab_size,
        *([] if tokens.sep is None else [tokens.sep]),
    }
    runs = zip(sorted(special), sorted(special)[1:], strict=False)
    last, end = max(runs, key=lambda run: run[1] - run[0])
    return last + 1, end


def _geometry(cell: Cell) -> Geometry | None:
    return None if cell.data == "random" else open_data(cell).geometry


def _import_everything(cell: Cell, changes: dict[str, Any]) -> None:
    """Loads the code that building and training will need, so that only data lies above the baseline of memory."""
    with torch.device("meta"):
        registry.build(cell.arch, cell.size, changes)
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.AdamW([weight]).step()
