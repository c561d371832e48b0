"""Reads a file of claims: matrices in the grammar of suites, each with a name, and claims with conditions over them.

Whatever is wrong is refused with the line and, for a name, the nearest one that there is.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from vlpbench.reports.claim_cells import trained
from vlpbench.reports.claim_types import KINDS, Claim, Condition, Kind, Statistic, Term
from vlpbench.results.matrix import Matrices, SuiteError, located, nearest
from vlpbench.results.record import UNITS, Cell
from vlpbench.results.toml_lines import TOP, Table, scan

_TOP_KEYS = ("title", "description", "rounds", "timeout", "defaults", "matrix", "claim")
_CLAIM = {"id": str, "kind": str, "quote": str, "gloss": str, "source": str, "note": str, "fixed": list}
_CLAIM |= {"condition": list}
_NEEDED = ("id", "kind", "quote", "gloss", "source", "condition")
_CONDITION: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "statistic": str,
    "a": (str, list, dict),
    "b": (str, list, dict),
    "quantity": str,
    "combine": str,
    "rank_of": str,
    "at_least": (int, float),
    "at_most": (int, float),
    "equals": (int, float, str, bool, list),
    "margin": str,
}
DETAIL = "detail."
"""Begins the name of a quantity that stands in a record's detail."""


def read(
    path: Path,
    *,
    check: Callable[[str, Any], None] | None = None,
    complete: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
) -> tuple[Claim, ...]:
    """See `vlpbench.reports.claims.load`."""
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"cannot read claims {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        found = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(located(path, error)) from error
    return _File(Matrices(path=path, lines=scan(content), check=check, complete=complete), found).claims()


class _File:
    """One file."""

    def __init__(self, reader: Matrices, found: Mapping[str, Any]) -> None:
        self.reader, self.found = reader, found
        self.used: set[str] = set()
        self.conditions = 0
        """Conditions read so far: their tables are numbered over the whole file."""

    def claims(self) -> tuple[Claim, ...]:
        """All claims, once everything in the file is found right."""
        self._check_top()
        cells = self._cells()
        claims: dict[tuple[str, str], Claim] = {}
        for number, table in enumerate(self.found["claim"]):
            claim = self._claim(table, number, cells)
            if claim.key in claims:
                self._fail(("claim", number), "id", f"claim {claim.id!r} of kind {claim.kind} is there twice")
            claims[claim.key] = claim
        for number, matrix in enumerate(self.found["matrix"]):
            if matrix["name"] not in self.used:
                self._fail(("matrix", number), "name", f"no claim needs the matrix {matrix['name']!r}; take it out")
        return tuple(claims.values())

    def _fail(self, table: Table, key: str, message: str) -> None:
        self.reader.fail(self.reader.lines.key(table, key), message)

    def _check_top(self) -> None:
        for key, value in self.found.items():
            if key not in _TOP_KEYS:
                place = (key, 0) if isinstance(value, (dict, list)) else TOP
                self._fail(place, "" if place != TOP else key, nearest("key", key, _TOP_KEYS))
        for key in ("matrix", "claim"):
            tables = self.found.get(key)
            if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
                self.reader.fail(1, f"a file of claims needs one or more [[{key}]] tables")

    def _cells(self) -> dict[str, tuple[Cell, ...]]:
        """Name of a matrix -> its cells."""
        cells: dict[str, tuple[Cell, ...]] = {}
        for number, matrix in enumerate(self.found["matrix"]):
            name = matrix.get("name")
            if not isinstance(name, str) or not name:
                self._fail(("matrix", number), "name", 'this matrix has no name; write name = "..." for claims to use')
            if name in cells:
                self._fail(("matrix", number), "name", f"the matrix {name!r} is there twice")
            fields = {key: value for key, value in matrix.items() if key != "name"}
            cells[name] = tuple(self.reader.expand(self.found.get("defaults", {}), fields, number))
        return cells

    def _claim(self, table: Mapping[str, Any], number: int, cells: Mapping[str, tuple[Cell, ...]]) -> Claim:
        place = ("claim", number)
        self._keys(table, place, _CLAIM, _NEEDED, "claim")
        if table["kind"] not in KINDS:
            self._fail(place, "kind", nearest("kind", table["kind"], tuple(KINDS)))
        kind: Kind = table["kind"]
        for field in table.get("fixed", ()):
            if field not in Cell.model_fields:
                self._fail(place, "fixed", nearest("field", str(field), tuple(Cell.model_fields)))
        conditions: list[Condition] = []
        for found in table["condition"]:
            where = ("claim.condition", self.conditions)
            self.conditions += 1
            conditions.append(self._condition(found, where, kind, cells))
        if not any(c.decides for c in conditions):
            self._fail(place, "id", f"claim {table['id']!r} has no condition with a bound, so nothing could decide it")
        needed = dict.fromkeys(term.cells for c in conditions for term in (*c.a, *c.b))
        return Claim(
            id=table["id"],
            kind=kind,
            quote=table["quote"],
            gloss=table["gloss"],
            source=table["source"],
            note=table.get("note", ""),
            fixed=tuple(table.get("fixed", ())),
            conditions=tuple(conditions),
            cells={name: cells[name] for name in needed},
        )

    def _condition(
        self, table: Mapping[str, Any], place: Table, kind: Kind, cells: Mapping[str, tuple[Cell, ...]]
    ) -> Condition:
        self._keys(table, place, _CONDITION, ("name", "statistic", "a"), "condition")
        statistic: Statistic = table["statistic"]
        if statistic not in get_args(Statistic):
            self._fail(place, "statistic", nearest("statistic", statistic, get_args(Statistic)))
        combine = table.get("combine", "mean")
        if combine not in ("mean", "sum"):
            self._fail(place, "combine", nearest("way to combine", combine, ("mean", "sum")))
        if ("b" in table) != (statistic in ("ratio", "difference")):
            word = "looks at a alone; take b out" if "b" in table else "needs b, which it compares a with"
            self._fail(place, "b" if "b" in table else "statistic", f"the statistic {statistic!r} {word}")
        sides = {side: self._terms(table, side, place, kind, cells) for side in ("a", "b")}
        self._check_bounds(table, place, statistic)
        return Condition(
            name=table["name"],
            statistic=statistic,
            a=sides["a"],
            b=sides["b"],
            combine=combine,
            at_least=table.get("at_least"),
            at_most=table.get("at_most"),
            equals=table.get("equals"),
            rank_of=table.get("rank_of", ""),
            margin=table.get("margin", ""),
            line=self.reader.lines.key(place, "name"),
        )

    def _terms(
        self, table: Mapping[str, Any], side: str, place: Table, kind: Kind, cells: Mapping[str, tuple[Cell, ...]]
    ) -> tuple[Term, ...]:
        """The terms of a side: a name of a matrix, or ``{ cells = name, quantity = ... }``, or a list of such."""
        given = table.get(side, [])
        terms = []
        for item in given if isinstance(given, list) else [given]:
            named = item if isinstance(item, dict) else {"cells": item}
            if odd := named.keys() - {"cells", "quantity"}:
                self._fail(place, side, nearest(f"key of {side}", min(odd), ("cells", "quantity")))
            name, quantity = (str(named.get(key, table.get(key, ""))) for key in ("cells", "quantity"))
            if name not in cells:
                line = self.reader.lines.value(place, side, name)
                self.reader.fail(line, nearest("matrix", name, tuple(cells)))
            if quantity not in UNITS and not quantity.startswith(DETAIL):
                key = side if "quantity" in named else "quantity"
                known = nearest("quantity", quantity, tuple(UNITS)) if quantity else f"{name!r} has no quantity"
                self._fail(place, key, known)
            self._check_kind(place, side, name, kind, cells[name])
            self.used.add(name)
            terms.append(Term(cells=name, quantity=quantity))
        return tuple(terms)

    def _check_kind(self, place: Table, side: str, name: str, kind: Kind, cells: tuple[Cell, ...]) -> None:
        """Trained cells are for claims on accuracy, and for no others."""
        found = {trained(cell) for cell in cells}
        if found != {kind == "A"}:
            word = "is of trained cells" if True in found else "names no budget, so it trains nothing"
            rule = f"the claim is of kind {kind}: accuracy and cost are claims of their own"
            self._fail(place, side, f"the matrix {name!r} {word}, and {rule}")

    def _check_bounds(self, table: Mapping[str, Any], place: Table, statistic: Statistic) -> None:
        low, high = table.get("at_least"), table.get("at_most")
        bounds = [bound for bound in (low, high) if bound is not None]
        if "equals" in table and (bounds or statistic != "exact"):
            self._fail(place, "equals", "equals is for the statistic 'exact', in place of at_least and at_most")
        if low is not None and high is not None and low > high:
            self._fail(place, "at_most", f"nothing is at least {low} and at most {high}")
        if statistic == "ratio" and any(bound <= 0 for bound in bounds):
            self._fail(place, "at_least" if low else "at_most", "a bound of a ratio is above 0")
        if (bounds or "equals" in table) and not table.get("margin"):
            self._fail(place, "", "a bound needs a margin: say in a sentence why it is where it is")

    def _keys(
        self,
        table: Mapping[str, Any],
        place: Table,
        known: Mapping[str, type | tuple[type, ...]],
        needed: tuple[str, ...],
        what: str,
    ) -> None:
        for key, value in table.items():
            if key not in known:
                self._fail(place, key, nearest(f"key of a {what}", key, tuple(known)))
            if not isinstance(value, known[key]) or (isinstance(value, bool) and key != "equals"):
                self._fail(place, key, f"{key} = {value!r} is not of the right type")
        for key in needed:
            if not table.get(key):
                self._fail(place, "", f"this {what} has no {key!r}")
