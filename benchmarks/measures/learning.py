"""How fast a pre-training learns: validation recall and binding at every look, and when each first reached a threshold.

Costs no training of its own where retrieval or VQA of the same recipe has left one in the cache.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.measures.flops import Flops
from vlpbench.benchmarks.train import cache_folder, open_data, pretrain

if TYPE_CHECKING:
    from vlpbench.benchmarks.curve import Looks
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell

RECALL = 50.0
"""Percent of mean validation recall that counts as having learnt to retrieve."""
BINDING = 90.0
"""Percent of attribute swaps told apart that counts as having learnt to bind; guessing reaches 50."""


class Learning:
    """See `vlpbench.benchmarks.measures.base.Measure`."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Samples are the looks, in order; a threshold that was not reached has no sample and a line in the detail.

        Raises:
            Unsupported: for a pre-training that was never looked at.
        """
        source = open_data(cell)
        with subject.settings(), cache_folder() as cache:
            trained = pretrain(subject, source, cache=cache)
        looks = trained.curve.looks
        if not looks.step:
            raise Unsupported(f"the pre-training was not looked at: {looks.what.get('none', 'no look was planned')}")
        steps = trained.config.steps
        recall = reached(looks, "recall", RECALL, steps)
        binding = reached(looks, "binding", BINDING, steps)
        work = Flops().run(subject, cell)
        values = {
            "learning_recall": looks.metrics["recall"],
            "learning_binding": looks.metrics.get("binding", []),
            "steps_to_recall": [recall["step"]],
            "cpu_seconds_to_recall": [recall["cpu_seconds"]],
            "steps_to_binding": [binding["step"]],
        }
        return Samples(
            values={name: found for name, found in values.items() if found and found != [None]},
            detail={
                "data_hash": source.hash,
                "pretraining": trained.detail(),
                "reached": {"recall": recall} | ({"binding": binding} if "binding" in looks.metrics else {}),
                "flops_per_step": work.values["flops_forward_backward"][0] * cell.batch,
                "looks_share": _share(looks, trained.curve.cpu_seconds[-1]),
            },
            flags=work.flags,
        )


def reached(looks: Looks, metric: str, threshold: float, steps: int) -> dict[str, Any]:
    """The first look at which a metric was at ``threshold`` or above, if the next look confirms it.

    Args:
        looks: what was seen.
        metric: a name in ``looks.metrics``; one that is not there was never reached.
        threshold: percent.
        steps: of the training.

    Returns:
        ``threshold``, ``within`` (the steps that there were), and ``step``, ``cpu_seconds`` and ``after`` (the look
        before, at which it was not there yet; 0 without one), all three None where it was not reached or not confirmed.
    """
    found: dict[str, Any] = {"threshold": threshold, "within": steps, "step": None, "after": None, "cpu_seconds": None}
    series = looks.metrics.get(metric, [])
    for place, (here, following) in enumerate(pairwise(series)):
        if min(here, following) >= threshold:
            return found | {
                "step": looks.step[place],
                "after": looks.step[place - 1] if place else 0,
                "cpu_seconds": looks.cpu_seconds[place],
            }
    return found


def _share(looks: Looks, training: float) -> float:
    """Processor time of all looks over that of the training without them."""
    return sum(looks.spent_cpu_seconds) / training
