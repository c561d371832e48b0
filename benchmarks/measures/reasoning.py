"""Visual reasoning: is a statement true of two pictures, or of one? Everything is fine-tuned with a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks.data.base import Reasoning
from vlpbench.benchmarks.data.scored import Grouped
from vlpbench.benchmarks.finetune import Classifying, Judged, chosen, finetuned, require_fusion
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.metrics import Rate
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
        both = "each picture is fused with the statement, a classifier reads both; all weights fine-tuned"
        one = "the picture is fused with the statement, a classifier reads them; all weights fine-tuned"
        brought = chosen(trial, "reasoning_accuracy", both if trial.main.data.sides > 1 else one)
        for name, judged in trial.found.items():
            brought.detail["splits"][name] |= consistency(judged)
        return brought


class Pairing(Classifying["Statements"]):
    """A model with a classifier over the fused states of both pictures, left then right (UNITER's "pair", table 5).

    Needs nothing of a model but that it fuses, so it is the same scheme for every architecture. Of statements about one
    picture the classifier reads one state.
    """

    loss = "reasoning"

    def __init__(self, *, subject: Subject, model: VLModel[Any, Any], statements: Statements) -> None:
        """The head is drawn from the cell's seed."""
        self.pictures = statements.sides
        super().__init__(subject=subject, model=model, data=statements, classes=len(statements.labels))

    def pooled(self, model: Any, batch: StatementBatch) -> Tensor:
        """(B, 2 * D), or (B, D) of one picture. The statement is encoded once for both pictures."""
        import torch
        from vlpbench.archs.model import take

        text = model.encode_text(text_to(batch.statement, self.device))
        if batch.right is None:
            return model.fuse_pooled(model.encode_image(batch.left.to(self.device)), text)
        image = model.encode_image(torch.cat([batch.left, batch.right]).to(self.device))
        twice = torch.arange(len(batch.label), device=self.device).repeat(2)
        return torch.cat(model.fuse_pooled(image, take(text, twice)).chunk(2), dim=1)

    def target(self, batch: StatementBatch) -> Tensor:
        """(B,) labels."""
        return batch.label


def consistency(judged: Judged[Statements]) -> dict[str, Any]:
    """Share in percent of the statements that are right of all pictures they were made about; empty without any."""
    import numpy as np

    if not isinstance(judged.data, Grouped):
        return {}
    _, place = np.unique(judged.data.group, return_inverse=True)
    wrong = np.bincount(place, weights=~judged.correct)
    rate = Rate(hits=int((wrong == 0).sum()), total=len(wrong))
    low, high = rate.interval()
    return {"consistency": {"percent": rate.percent, "total": rate.total, "low": low, "high": high}}


def _statements(source: Source, split: str) -> Statements:
    if not isinstance(source, Reasoning):
        raise Unsupported(f"{source.name} has no statements about two pictures; take data = 'scenes'")
    return source.reasoning(split)
