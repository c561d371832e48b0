"""What the README promises is what is run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_continuous_integration_runs_the_test_line_of_the_readme():
    lines = (ROOT / "README.md").read_text().splitlines()
    start = lines.index("## Test it")
    command = next(line for line in lines[start:] if line.startswith("python3"))
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def blocks(name: str) -> list[str]:
    """Code blocks, fences and language included."""
    return re.findall(r"^```.*?^```$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_chinese_readme_has_the_same_code_commands_and_links():
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    assert len(blocks("README.md")) >= 4
    assert blocks("README.zh-CN.md") == blocks("README.md")
    commands = [re.findall(r"^\| `(.*?)` \|", text, re.MULTILINE) for text in (english, chinese)]
    assert commands[0] == commands[1] != []
    spans = [sorted(set(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text))) for text in (english, chinese)]
    assert spans[0] == spans[1]
    links = [set(re.findall(r"\]\(([^)]+)\)", text)) for text in (english, chinese)]
    assert links[0] - {"README.zh-CN.md"} == links[1] - {"README.md"}
    headings = [re.findall(r"^#+ ", text, re.MULTILINE) for text in (english, chinese)]
    assert headings[0] == headings[1]
    for link in links[0] | links[1]:
        assert (ROOT / link).exists(), link
