"""`trueup demo` to its end on every screen, with a tiny model: simulated annotators judge over HTTP as people do."""

from __future__ import annotations

from pathlib import Path

import pytest
from ports import free_port
from tiny import WORDS, make_model

from trueup import demo
from trueup.feedback.screens import version
from trueup.run.artifacts import read_jsonl, write_jsonl
from trueup.run.files import read_json

GUIDELINES = "Be fair."


@pytest.mark.slow
@pytest.mark.parametrize("interface", ["thumbs", "pairwise", "rating", "edit"])
def test_the_demo_ends_in_a_verdict_whatever_people_are_asked(interface: str, tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    texts = tmp_path / "demo_texts"
    texts.mkdir()
    questions = [f"{a} {b}" for a in WORDS for b in WORDS]
    write_jsonl(texts / "demonstrations.jsonl", [{"prompt": q, "response": f"glad {q}"} for q in questions[:40]])
    write_jsonl(texts / "prompts.jsonl", [{"prompt": q} for q in questions[40:60]])
    write_jsonl(texts / "held_out.jsonl", [{"prompt": q} for q in questions[60:64]])
    (tmp_path / "demo.yaml").write_text(
        f"name: demo\nmethod: dpo\nmodel: {{base: {tmp_path / 'model'}}}\n"
        "data: {demonstrations: demo_texts/demonstrations.jsonl, prompts: demo_texts/prompts.jsonl, "
        "held_out: demo_texts/held_out.jsonl}\n"
        "labelstudio: {wait: true, poll_s: 0.5}\nsft: {learning_rate: 0.01, num_train_epochs: 2}\n"
        "sample: {num_completions: 3, max_new_tokens: 8, temperature: 1.5}\n"
        "evaluate: {num_completions: 1, max_new_tokens: 8}\nexport: {merged: false}\n"
        f"collect: {{interface: {interface}, guidelines: {GUIDELINES}, overlap: {{share: 0.3, people: 3}}, "
        "repeated_share: 0.1}\n"
    )
    found = demo.play(tmp_path, human=False, seed=0, method="dpo", port=free_port())
    assert 0 <= found["win_rate"]["estimate"] <= 1
    made = tmp_path / "runs" / "demo" / "round-1"
    metrics = (read_json(made / "collect" / "record.json") or {})["metrics"]
    assert metrics["num_annotators"] == 3 and metrics["judged_under_guidelines"].keys() == {version(GUIDELINES)}
    lines = list(read_jsonl(made / "collect" / "annotations.jsonl"))
    asked = metrics["asked"]
    assert len(lines) == asked["questions"] + 2 * asked["of_several_people"]
    assert sum(sum(kind.values()) for kind in metrics["became"].values()) == len(lines)
    assert asked["repeated"] == round(0.1 * asked["questions"])
    if interface != "edit":
        assert metrics["repeated"]["all"]["num"] == 3 * asked["repeated"]  # each by the three who judged the question
        assert metrics["num_compared"] == 3 * asked["of_several_people"]
    assert (read_json(made / "reward" / "record.json") or {})["metrics"]
