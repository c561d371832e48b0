"""Two processes: contrast and negatives stay local, the queue takes rank 0's rows first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def test_losses_are_local_and_queues_gather_in_rank_order(
    oracle: Callable[[str], Any], oracles: Path, check: Any, tmp_path: Path
) -> None:
    recorded = oracle("albef_pretrain_2rank")
    script = Path(__file__).with_name("two_ranks.py")
    outs = [tmp_path / f"rank{rank}.safetensors" for rank in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(oracles), str(tmp_path / "rendezvous"), str(outs[rank])]
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=240) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    for rank, out in enumerate(outs):
        ours, theirs = load_file(out), recorded.step(f"rank{rank}")
        for name, official in (("itc", "loss_ita"), ("itm", "loss_itm"), ("mlm", "loss_mlm")):
            check.loss(ours[f"loss_{name}"], theirs[official])
        check.moved(ours["image_queue"], theirs["image_queue"])
        check.moved(ours["text_queue"], theirs["text_queue"])
        assert torch.equal(ours["queue_ptr"], theirs["queue_ptr"])
