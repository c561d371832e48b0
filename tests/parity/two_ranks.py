"""One of two processes that train on one recorded batch each. Run by test_albef_two_ranks; not a test itself.

Arguments: rank, folder of oracles, rendezvous file, file to write.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed
from vlpbench.archs.pretrained import ALBEF_PRETRAIN, load, save


def main(rank: int, oracles: Path, rendezvous: str, out: str) -> None:
    torch.set_num_threads(1)
    kit = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
    pretrain, recorded = (kit["Oracle"](oracles / f"albef_pretrain{end}") for end in ("", "_2rank"))
    albef = kit["AlbefKit"]
    learner = albef.learner(pretrain.meta, ("itc", "itm", "mlm"))
    inputs = pretrain.step(f"b{rank + 1}")
    size, queue = len(inputs["image"]), pretrain.meta["config"]["queue_size"]
    # The recording began with a pointer of its own, two batches before the one it ended with.
    pointer = (recorded.tensors["rank0.queue_ptr"] - 2 * size) % queue
    load(learner, pretrain.state | {"queue_ptr": pointer}, ALBEF_PRETRAIN)
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    batch = albef.batch(inputs, torch.arange(rank * size, (rank + 1) * size))
    draws = albef.draws(recorded.step(f"rank{rank}"), inputs["attention_mask"].bool())
    losses = learner(batch, alpha=0.4, draws=draws)
    learner.after_step()
    distributed.destroy_process_group()
    state = save(learner, ALBEF_PRETRAIN)
    queues = {name: state[name] for name in ("image_queue", "text_queue", "queue_ptr")}
    save_file(queues | {f"loss_{name}": loss.detach() for name, loss in losses.items()}, out)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
