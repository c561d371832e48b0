"""Every quantity is defined in words, with its unit, and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path

from vlpbench.results.record import UNITS

PAGE = Path(__file__).parents[2] / "results" / "README.md"


def defined() -> dict[str, str]:
    """Quantity -> unit, from the tables of the page."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0].startswith("`"):
            found |= dict.fromkeys(re.findall(r"`(\w+)`", cells[0]), cells[1])
    return found


def test_the_page_and_the_table_of_units_agree() -> None:
    assert defined() == {name: quantity.unit for name, quantity in UNITS.items()}
