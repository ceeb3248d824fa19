"""The table of contestants: whose verdicts it shows, how wide it is, and what it says of best-of-n."""

from typing import Any

from trueup.evaluation import baselines, standings
from trueup.run.data_config import DataConfig

EVEN = {"estimate": 0.6123, "low": 0.51, "high": 0.71}
WON = {"estimate": 0.7, "low": 0.6, "high": 0.8, "num_prompts": 84, "ties": 0.02, "length_controlled": EVEN}
LABELS = ("sft", "aligned", "round_before", "base", "system_prompt", "few_shot", "sft_best_of_4", "aligned_best_of_4")


def judge(name: str, *labels: str) -> dict[str, Any]:
    over = dict.fromkeys(labels, WON)
    own = {"aligned": WON} | {label: WON for label in labels if label != "sft"}
    return {"name": name, "win_rates_over": over, "win_rates_over_sft": own, "trust": None, "can_tell": None}


def figures(**judges: Any) -> dict[str, Any]:
    one = {
        "mean_length_tokens": 34.5,
        "eos_rate": 1.0,
        "tokens_per_s": 70.0,
        "prompt_tokens": 31,
        "sampled_tokens": 138,
    }
    return {
        **dict.fromkeys(LABELS, one),
        "judge": {"kind": next(iter(judges)), "name": "whoever", "trust": None, "can_tell": None},
        "judges": judges,
        "began_from": {"round": 1, "adapter": "dpo@a-variant-with-a-long-name"},
        "best_of": {"n": 4, "most_won": 0.8, "most_kl_nats_per_answer": 0.636},
    }


def test_each_contestant_has_a_line_of_78_columns_at_most() -> None:
    found = figures(disjoint=judge("d", *(label for label in LABELS if label != "aligned")))
    said = standings.lines(found)
    assert max(map(len, said)) <= 78
    assert said[0] == "the contestants, judged by d:"
    rows = {line.rsplit("  ")[0]: line.split() for line in said[2 : 2 + len(LABELS)]}
    assert len(rows) == len(LABELS)
    best = next(line for line in said if line.startswith("SFT, best of 4"))
    assert best.split()[4:] == ["70.0%", "(60", "to", "80)", "2%", "61%", "70.0%", "34.5", "169"]
    assert next(line for line in said if line.startswith("aligned (after)")).split()[2:] == ["70.0%", "34.5", "169"]
    assert any("at most 80.0%" in line for line in said) and any("0.64 nats" in line for line in said)


def test_who_answered_fewer_prompts_is_named() -> None:
    few = judge("d", "sft", "base", "system_prompt")
    few["win_rates_over"] = {"sft": WON} | dict.fromkeys(("base", "system_prompt"), WON | {"num_prompts": 16})
    said = standings.explained(figures(disjoint=few))
    assert "On 16 prompts alone: base, bare; base, system prompt." in said


def test_where_people_judged_another_judge_fills_the_table() -> None:
    every = [label for label in LABELS if label != "aligned"]
    found = figures(people=judge("people", "sft"), optimized=judge("r", *every), disjoint=judge("d", *every))
    assert standings.lines(found)[0] == "the contestants, judged by d:"


def test_a_judge_that_knows_answers_of_sft_alone_is_not_relied_on_for_the_base() -> None:
    found = figures(disjoint=judge("d", "sft", "base"))
    for label in LABELS[2:]:
        if label != "base":
            del found[label]
    assert any("Do not rely on the figures of base, bare:" in line for line in standings.explained(found))
    found["judge"] = found["judge"] | {"kind": "endpoint"}
    found["judges"] = {"endpoint": found["judges"]["disjoint"]}
    assert not any("rely" in line for line in standings.explained(found))


def test_baselines_by_default_are_those_that_can_be_made_and_judged() -> None:
    data, shot = DataConfig(system="s"), [object()]
    assert baselines.default(DataConfig(), [], learned=False) == ("base",)
    assert baselines.default(data, shot, learned=False) == ("base", "system_prompt", "few_shot")
    assert baselines.default(data, shot, learned=True) == ()


def test_records_of_earlier_versions_have_none() -> None:
    assert standings.lines({"win_rate_by_reward_model": WON}) == []
    old = figures(disjoint=judge("d", "sft"))
    old["aligned"] = {"mean_length_tokens": 34.5, "eos_rate": 1.0, "tokens_per_s": 70.0}
    assert standings.lines(old) == []
