"""How far the entries of a momentum queue have moved by the time that they are used.

Costs no training of its own where another measure of the same recipe has left one in the cache: every training with a
queue is looked at for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.train import cache_folder, open_data, pretrain

if TYPE_CHECKING:
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell


class QueueDrift:
    """See `vlpbench.benchmarks.measures.base.Measure`."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """One sample a look, in order.

        Raises:
            Unsupported: for a training without a queue, or one that was never looked at.
        """
        source = open_data(cell)
        with subject.settings(), cache_folder() as cache:
            trained = pretrain(subject, source, cache=cache)
        looks = trained.curve.looks
        if "drift_image" not in looks.metrics:
            reason = looks.what.get("none", f"it was looked at without a queue: momentum {cell.momentum}, {cell.dtype}")
            raise Unsupported(f"the queue of the pre-training was not looked at: {reason}")
        image, text = looks.metrics["drift_image"], looks.metrics["drift_text"]
        recipe = trained.learner.recipe
        return Samples(
            values={
                "queue_drift": [(one + other) / 2 for one, other in zip(image, text, strict=True)],
                "queue_drift_oldest": looks.metrics["drift_oldest"],
            },
            detail={
                "data_hash": source.hash,
                "pretraining": trained.detail(),
                "image": image,
                "text": text,
                "step": looks.step,
                "momentum_rate": recipe.momentum_rate,
                "queue_size": recipe.queue_size,
                "steps_held": recipe.queue_size / trained.config.batch,
            },
        )
