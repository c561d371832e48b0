"""The classifier head by hand."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from vlpbench.archs.heads import ClassifierHead


def test_by_hand() -> None:
    torch.manual_seed(0)
    head = ClassifierHead(3, 5)
    state = head.state_dict()
    x = torch.randn(2, 3)
    hidden = F.layer_norm(x @ state["0.weight"].T + state["0.bias"], (6,))
    torch.testing.assert_close(head(x), F.gelu(hidden) @ state["3.weight"].T + state["3.bias"])


def test_hidden_size() -> None:
    assert ClassifierHead(3, 5)[0].out_features == 6
    assert ClassifierHead(3, 5, hidden=4)[0].out_features == 4
