"""The figures of a report. Each is drawn from a board, and is None where the records hold nothing to draw."""

from __future__ import annotations

from vlpbench.reports.board import Board
from vlpbench.reports.svg import Figure


def figures(board: Board) -> list[Figure]:
    """All figures of one environment, in the order of the page."""
    return [figure for figure in () if figure in board.rows]
