"""Visual reasoning: is a statement true of two pictures? Everything is fine-tuned with a classifier over pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks.data.base import Reasoning
from vlpbench.benchmarks.finetune import Classifying, chosen, finetuned, require_fusion
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.train import text_to

if TYPE_CHECKING:
    from torch import Tensor
    from vlpbench.archs.model import VLModel
    from vlpbench.benchmarks.data.base import Source, StatementBatch, Statements
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell


class VisualReasoning:
    """See `vlpbench.benchmarks.measures.base.Measure`."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """One sample, in percent.

        Raises:
            Unsupported: for a model that cannot fuse, or data without statements about two pictures.
        """
        require_fusion(subject, "a statement")

        def task(model: VLModel[Any, Any], statements: Statements) -> Pairing:
            return Pairing(subject=subject, model=model, statements=statements)

        trial = finetuned(subject, sets=_statements, task=task)
        protocol = "each picture is fused with the statement, a classifier reads both; all weights fine-tuned"
        return chosen(trial, "reasoning_accuracy", protocol)


class Pairing(Classifying["Statements"]):
    """A model with a classifier over the fused states of both pictures, left then right (UNITER's "pair", table 5).

    Needs nothing of a model but that it fuses, so it is the same scheme for every architecture.
    """

    loss = "reasoning"
    pictures = 2

    def __init__(self, *, subject: Subject, model: VLModel[Any, Any], statements: Statements) -> None:
        """The head is drawn from the cell's seed."""
        super().__init__(subject=subject, model=model, data=statements, classes=len(statements.labels))

    def pooled(self, model: Any, batch: StatementBatch) -> Tensor:
        """(B, 2 * D). The statement is encoded once for both pictures."""
        import torch
        from vlpbench.archs.model import take

        image = model.encode_image(torch.cat([batch.left, batch.right]).to(self.device))
        text = model.encode_text(text_to(batch.statement, self.device))
        twice = torch.arange(len(batch.label), device=self.device).repeat(2)
        return torch.cat(model.fuse_pooled(image, take(text, twice)).chunk(2), dim=1)

    def target(self, batch: StatementBatch) -> Tensor:
        """(B,) labels."""
        return batch.label


def _statements(source: Source, split: str) -> Statements:
    if not isinstance(source, Reasoning):
        raise Unsupported(f"{source.name} has no statements about two pictures; take data = 'scenes'")
    return source.reasoning(split)
