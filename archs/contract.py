"""What an architecture promises, as a check that any package can run on its own: `check("name")`.

The promises are the functions in `vlpbench.archs.contract_clauses`. A clause that raises is broken too: the error is
the finding. Weights are shaken before they are looked at, so that a gate or a scale which starts at zero hides nothing.
"""

from __future__ import annotations

import inspect

import torch
from vlpbench.archs import registry
from vlpbench.archs.contract_case import Build, Case
from vlpbench.archs.contract_clauses import CLAUSES
from vlpbench.archs.types import Can


class ContractError(Exception):
    """A clause that does not hold; the message starts with its name."""

    def __init__(self, clause: str, finding: str) -> None:
        super().__init__(f"{clause}: {finding}")
        self.clause = clause


def check_model(build: Build, declared: Can) -> None:
    """Checks every clause on models that ``build`` makes.

    Raises:
        ContractError: for the first clause that does not hold.
    """
    case = Case(build, declared)
    for clause in CLAUSES:
        try:
            with torch.no_grad():
                finding = next(clause(case), None)
        except Exception as error:
            promise = (inspect.getdoc(clause) or "").splitlines()[0]
            raise ContractError(
                clause.__name__, f"{type(error).__name__}: {error} (while checking: {promise})"
            ) from error
        if finding is not None:
            raise ContractError(clause.__name__, finding)


def check(name: str, size: str = "tiny") -> None:
    """Checks a registered architecture, ``+late`` included.

    Raises:
        ContractError: for the first clause that does not hold.
        UnknownName: for an architecture or size that is not registered.
    """
    spec = registry.get(name)
    if size not in spec.sizes:
        raise registry.UnknownName(registry.nearest(f"size of {name}", size, list(spec.sizes)))
    check_model(lambda changes: registry.build(name, size, changes), spec.can)
