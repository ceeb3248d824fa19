"""The report says the verdict first, shows every contestant, and escapes what models wrote."""

import re
from pathlib import Path
from typing import Any

import pytest

from trueup.errors import ConfigError
from trueup.evaluation import baselines, report
from trueup.run.artifacts import records, write_json
from trueup.run.data_config import DataConfig, Shot
from trueup.run.goal import verdict

WON = {"estimate": 0.75, "low": 0.6, "high": 0.85, "num_prompts": 2}
LABELS = ("sft", "aligned", "base")


def figures() -> dict[str, Any]:
    one = {"mean_length_tokens": 4.0, "eos_rate": 0.5, "tokens_per_s": 100.0}
    return {
        **dict.fromkeys(LABELS, one),
        "win_rate_by_reward_model": WON,
        "win_rates_over": {"sft": WON, "base": WON},
        "kl_nats_per_token": 0.25,
        "goal": {"kl": {"wanted_at_most": 0.2, "found": 0.25, "met": False}},
    }


def answers(number: int) -> list[dict[str, Any]]:
    return [
        {
            "messages": [{"role": "user", "content": f"question {i}"}],
            "sft": "<script>alert(1)</script>",
            "aligned": "hi",
        }
        | {"base": "ho", "reward": dict.fromkeys(LABELS, float(i)), "num_tokens": dict.fromkeys(LABELS, i + 1)}
        for i in range(number)
    ]


def written(folder: Path, made: list[dict[str, Any]]) -> str:
    path = report.write(folder / "r.html", title="t", figures=figures(), answers=answers(24), records=made)
    return path.read_text()


def test_the_page_holds_verdict_baselines_goal_and_a_dozen_answers(tmp_path: Path) -> None:
    collected = {"agreement": 0.75, "num_compared": 8, "num_annotators": 3, "share_up": 0.5}
    cost = {"wall_s": 61.25, "peak_rss_bytes": 3_210_000_000, "fingerprint": "f" * 64}
    html = written(tmp_path, [cost | {"stage": "collect", "metrics": collected}])
    first = re.search(r"<h1>t</h1>\s*<p>([^<]*)</p>", html)
    assert first is not None
    assert first.group(1).startswith("The aligned model is better: it wins 75.0% of its comparisons with SFT")
    assert "over base, bare" in html  # in the plot
    assert ("NOT met" in html, "agree in 75% of 8 cases" in html) == (True, True)
    assert ("61.2" in html, "3.21" in html) == (True, True)
    assert len(re.findall(r">question \d+<", html)) == 12
    assert "<script>" not in html


def test_without_a_collect_record_nothing_is_claimed_about_annotators(tmp_path: Path) -> None:
    assert "No labels of this run are known" in written(tmp_path, [])


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.51, 0.9, " better:"), (0.1, 0.49, " worse:"), (0.4, 0.6, "neither better nor worse")]
)
def test_the_verdict_needs_the_whole_interval_on_one_side(low: float, high: float, word: str) -> None:
    assert word in verdict({"estimate": (low + high) / 2, "low": low, "high": high, "num_prompts": 9})


def test_what_each_baseline_asks_the_base() -> None:
    system, ask = {"role": "system", "content": "s"}, {"role": "user", "content": "q"}
    example, data = Shot(prompt="p", response="r"), DataConfig(system="s")
    shown = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]
    asked = [[system, ask]]
    assert baselines.prompts("base", asked, data, []) == [[ask]]
    assert baselines.prompts("system_prompt", asked, data, []) == [[system, ask]]
    assert baselines.prompts("few_shot", asked, data, [example]) == [[system, *shown, ask]]
    assert baselines.prompts("few_shot", [[ask]], DataConfig(), [example]) == [[*shown, ask]]
    shot = DataConfig(few_shot=(Shot(prompt="a", response="b"),))  # the run's prompts begin with these
    own = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert baselines.prompts("base", [[*own, ask]], shot, []) == [[ask]]
    assert baselines.prompts("few_shot", [[*own, ask]], shot, [example]) == [[*shown, ask]]
    with pytest.raises(ConfigError, match=r"no data\.system"):
        baselines.prompts("system_prompt", asked, DataConfig(), [])
    with pytest.raises(ConfigError, match=r"evaluate\.few_shot"):
        baselines.prompts("few_shot", asked, data, [])


def test_records_are_those_of_complete_stages(tmp_path: Path) -> None:
    places = ("sft", "round-1/dpo", "round-1/dpo.old-1", "round-1/ppo.partial", "round-1/export/adapter", "store")
    for place in places:
        (tmp_path / place).mkdir(parents=True)
        if place != "store":
            write_json(tmp_path / place / "record.json", {"stage": place})
    assert {record["stage"] for record in records(tmp_path, 1, "export")} == {"sft", "round-1/dpo"}
