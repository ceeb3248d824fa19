"""docs/serving.md gives the commands that the cards give, for the demo's folders."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trueup.export import usage

EXPORT = "runs/demo/round-1/export"
PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
ORIGIN: Any = SimpleNamespace(name="owner/name", revision=None)
USE = usage.Usage(
    where=f"{EXPORT}/merged", origin=ORIGIN, gguf=f"{EXPORT}/gguf/demo-Q8_0.gguf", ollama=f"{EXPORT}/ollama"
)


@pytest.mark.parametrize("block", [usage.vllm(USE, "merged", ""), usage.llama_cpp(USE), usage.ollama(USE)])
def test_the_page_and_the_cards_give_the_same_commands(block: str) -> None:
    assert block.strip() in PAGE
