"""What a verdict takes, what each baseline asks the base, and which records are those of a run."""

from pathlib import Path

import pytest

from trueup.errors import ConfigError
from trueup.evaluation import baselines
from trueup.run.artifacts import records, write_json
from trueup.run.data_config import DataConfig, Shot
from trueup.run.goal import verdict


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
