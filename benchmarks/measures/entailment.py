"""Visual entailment: a picture entails a hypothesis, contradicts it, or leaves it open. All weights are fine-tuned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks.data.base import Entailment
from vlpbench.benchmarks.finetune import Classifying, chosen, finetuned, require_fusion
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.train import text_to

if TYPE_CHECKING:
    from torch import Tensor
    from vlpbench.archs.model import VLModel
    from vlpbench.benchmarks.data.base import Hypotheses, HypothesisBatch, Source
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell


class VisualEntailment:
    """See `vlpbench.benchmarks.measures.base.Measure`."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """One sample, in percent.

        Raises:
            Unsupported: for a model that cannot fuse, or data without hypotheses.
        """
        require_fusion(subject, "a hypothesis")

        def task(model: VLModel[Any, Any], hypotheses: Hypotheses) -> Entailing:
            return Entailing(subject=subject, model=model, hypotheses=hypotheses)

        trial = finetuned(subject, sets=_hypotheses, task=task)
        protocol = "classifier over three labels, all weights fine-tuned"
        return chosen(trial, "entailment_accuracy", protocol)


class Entailing(Classifying["Hypotheses"]):
    """A model with a classifier over entailment, neutral and contradiction."""

    loss = "entailment"

    def __init__(self, *, subject: Subject, model: VLModel[Any, Any], hypotheses: Hypotheses) -> None:
        """The head is drawn from the cell's seed."""
        super().__init__(subject=subject, model=model, data=hypotheses, classes=len(hypotheses.labels))

    def pooled(self, model: Any, batch: HypothesisBatch) -> Tensor:
        """(B, D) of pictures with their hypotheses."""
        image = model.encode_image(batch.image.to(self.device))
        text = model.encode_text(text_to(batch.hypothesis, self.device))
        return model.fuse_pooled(image, text)

    def target(self, batch: HypothesisBatch) -> Tensor:
        """(B,) labels."""
        return batch.label


def _hypotheses(source: Source, split: str) -> Hypotheses:
    if not isinstance(source, Entailment):
        raise Unsupported(f"{source.name} has no hypotheses about pictures; take data = 'scenes'")
    return source.entailment(split)
