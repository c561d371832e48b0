"""Visual question answering: everything is fine-tuned with a classifier over a closed list of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlpbench.benchmarks.data.scored import Answered
from vlpbench.benchmarks.finetune import Classifying, Judged, finetuned, require_fusion
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.train import text_to
from vlpbench.benchmarks.vqa_score import vqa_score

if TYPE_CHECKING:
    from torch import Tensor
    from vlpbench.archs.model import VLModel
    from vlpbench.benchmarks.data.base import QuestionBatch, Questions, Source
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell


class VQA:
    """See `vlpbench.benchmarks.measures.base.Measure`."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Samples are percent, one each. ``vqa_binding`` is the mean over the types that need binding.

        Raises:
            Unsupported: for a model that cannot fuse, before it is trained.
        """
        require_fusion(subject, "a question")

        def task(model: VLModel[Any, Any], questions: Questions) -> Answering:
            return Answering(subject=subject, model=model, questions=questions)

        trial = finetuned(subject, sets=_questions, task=task)
        main = trial.main
        detail = trial.detail | {
            "protocol": "classifier over a closed list of answers, all weights fine-tuned",
            "answers": list(main.data.answers),
            "splits": {name: _detail(judged) | official(judged) for name, judged in trial.found.items()},
        }
        values = {"vqa_accuracy": [main.accuracy.percent]}
        bound = binding(main)
        if bound is not None:
            values["vqa_binding"] = [bound]
        return Samples(values=values, detail=detail, flags=main.flags())


class Answering(Classifying["Questions"]):
    """A model with a classifier over answers."""

    def __init__(self, *, subject: Subject, model: VLModel[Any, Any], questions: Questions) -> None:
        """The head is drawn from the cell's seed."""
        super().__init__(subject=subject, model=model, data=questions, classes=len(questions.answers))

    def pooled(self, model: Any, batch: QuestionBatch) -> Tensor:
        """(B, D) of pictures with their questions."""
        image = model.encode_image(batch.image.to(self.device))
        text = model.encode_text(text_to(batch.question, self.device))
        return model.fuse_pooled(image, text)

    def target(self, batch: QuestionBatch) -> Tensor:
        """(B,) answers."""
        return batch.answer

    def supervised(self, logits: Tensor, batch: QuestionBatch) -> Tensor:
        """Of several people's answers: binary cross-entropy with what each is worth, summed over the list (UNITER)."""
        if batch.worth is None:
            return super().supervised(logits, batch)
        from torch.nn.functional import binary_cross_entropy_with_logits

        worth = batch.worth.to(self.device)
        return binary_cross_entropy_with_logits(logits, worth) * worth.shape[1]


def binding(judged: Judged[Questions]) -> float | None:
    """Mean accuracy in percent of the types that need binding; None where there is none."""
    chosen = [rate.percent for kind, rate in judged.kinds.items() if kind in judged.data.binding]
    return sum(chosen) / len(chosen) if chosen else None


def official(judged: Judged[Questions]) -> dict[str, Any]:
    """What the evaluation of VQA v2 gives, where several people answered; empty where one answer is right."""
    if not isinstance(judged.data, Answered):
        return {}
    annotations = judged.data.annotations()
    if not any(len(annotation["answers"]) > 1 for annotation in annotations):
        return {}
    said = [judged.data.answers[answer] for answer in judged.answer.tolist()]
    score = vqa_score(annotations, {a["question_id"]: text for a, text in zip(annotations, said, strict=True)})
    return {"official": {"percent": score.overall, "total": len(said), "by_answer_type": score.by_answer_type}}


def _detail(judged: Judged[Questions]) -> dict[str, Any]:
    return judged.detail() | {"binding": binding(judged), "binding_kinds": sorted(judged.data.binding)}


def _questions(source: Source, split: str) -> Questions:
    return source.questions(split)
