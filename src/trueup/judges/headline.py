"""Whose verdict a report begins with, and what all who judged said, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from trueup.evaluation import intervals
from trueup.evaluation.length import length_controlled
from trueup.judges import trust
from trueup.judges.protocol import outcome
from trueup.judges.settings import Kind
from trueup.run.goal import answer_to_goal
from trueup.run.run_file import RunFile
from trueup.run.stage import Metrics


@dataclass(frozen=True)
class Opinion:
    """What one judge said of the aligned model's answers against those of each other contestant.

    `answers` are those of `Judged`, in the order of the prompts. `trust` is what `trust.measure` found; None where
    there was nothing to measure it on. `interval` replaces the win rate's over SFT, where another one belongs to how
    the answers were asked for. `learned_from` counts the judgements that it learned from, as `disjoint.Examples` does.
    """

    kind: Kind
    name: str
    answers: dict[str, list[float | None]]
    trust: dict[str, Any] | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    interval: dict[str, float] | None = None
    over_sft: dict[str, list[float | None]] = field(default_factory=dict)  # of each other contestant against SFT
    learned_from: dict[str, int] | None = None


@dataclass(frozen=True)
class Answered:
    """What a contestant answered: the places of its prompts among all, and the lengths of its answers in tokens."""

    rows: list[int]
    lengths: list[int]


def figures(opinion: Opinion, prompt_ids: Sequence[str], answered: Mapping[str, Answered]) -> dict[str, Any]:
    """Win rates over each contestant, how many comparisons had no answer, and how far the judge can be trusted."""

    def rate(label: str, other: str, judged: Sequence[float | None]) -> dict[str, Any]:
        rows, whole = answered[label].rows, answered[other].lengths
        longer = [own - whole[i] for i, own in zip(rows, answered[label].lengths, strict=True)]
        return _rate(judged, [prompt_ids[i] for i in rows], longer if other == "sft" else [-more for more in longer])

    won = {label: found for label, some in opinion.answers.items() if (found := rate(label, "aligned", some))}
    if opinion.interval is not None:
        won["sft"] = won.get("sft", {}) | opinion.interval
    own = {"aligned": won["sft"]} if "sft" in won else {}
    own |= {label: found for label, some in opinion.over_sft.items() if (found := rate(label, "sft", some))}
    return {
        "name": opinion.name,
        "win_rates_over": won,
        "win_rates_over_sft": own,
        "num_without_answer": {label: sum(a is None for a in some) for label, some in opinion.answers.items()},
        "trust": opinion.trust,
        "can_tell": None if opinion.trust is None else trust.can_tell(opinion.trust),
        "notes": opinion.notes,
        **({} if opinion.learned_from is None else {"learned_from": opinion.learned_from}),
    }


def _rate(judged: Sequence[float | None], prompt_ids: Sequence[str], longer: Sequence[int]) -> dict[str, Any]:
    """A win rate, the share of ties, and the rate at equal lengths, by how much longer who may win is; of none, {}."""
    told = [(p, outcome(one), x) for p, one, x in zip(prompt_ids, judged, longer, strict=True) if one is not None]
    if not told:
        return {}
    prompts, outcomes = [prompt for prompt, _, _ in told], [one for _, one, _ in told]
    return intervals.win_rate(outcomes, prompts) | {
        "ties": sum(one == 0.5 for one in outcomes) / len(outcomes),
        "length_controlled": length_controlled(outcomes, [more for _, _, more in told], prompts),
    }


def choose(wanted: Kind, opinions: Mapping[str, Opinion]) -> Kind:
    """The judge that was asked for; where there is no disjoint one, what was optimized, which is called that."""
    return wanted if wanted in opinions else "optimized"


def with_people(opinions: Mapping[str, Opinion], chosen: Kind, prompt_ids: Sequence[str]) -> dict[str, Any] | None:
    """Where people and another judge both compared: the win rate by people's labels with the judge's help."""
    other = next((opinions[kind] for kind in ("disjoint", "endpoint", "function") if kind in opinions), None)
    if chosen != "people" or other is None:
        return None

    def told(opinion: Opinion) -> list[tuple[str, float]]:
        pairs = zip(prompt_ids, opinion.answers["sft"], strict=True)
        return [(prompt, outcome(answer)) for prompt, answer in pairs if answer is not None]

    people = [(p, a) for p, a in zip(prompt_ids, opinions["people"].answers["sft"], strict=True) if a is not None]
    found = trust.prediction_powered(people, told(other))
    return None if found is None else found | {"judge": other.name}


def report(
    wanted: Kind, run: RunFile, found: dict[str, Any], opinions: Mapping[str, Opinion], prompt_ids: list[str]
) -> Metrics:
    """The figures of an evaluation: what `contest.measured` found, every judge's, and the headline of the chosen."""
    kind = choose(wanted, opinions)
    answered = {
        label: Answered(found["rows"][label], [len(one["ids"]) for one in some])
        for label, some in found["done"].items()
    }
    judges = {one: figures(opinion, prompt_ids, answered) for one, opinion in opinions.items()}
    judge: dict[str, Any] = {"kind": kind} | {key: judges[kind][key] for key in ("name", "trust", "can_tell")}
    if kind != wanted:
        judge["instead_of"] = {"kind": wanted, "why": found["no_disjoint"]}
    won, optimized = judges[kind]["win_rates_over"], judges["optimized"]["win_rates_over"]
    functions = found["reward_functions"]
    if judge["trust"] is None and kind == "optimized" and not functions:
        judge["can_tell"] = False  # nothing was held out: less evidence gives no more of a verdict
    return {
        **found["metrics"],
        **found["kl"],
        "kl_temperature": found["temperature"] or 1.0,
        "sampling": found["sampling"],
        "win_rate": won["sft"],
        "judge": judge,
        "judges": judges,
        "with_people": with_people(opinions, kind, prompt_ids),
        f"win_rate_by_reward_{'functions' if functions else 'model'}": optimized["sft"],
        "reward_functions": functions,
        "win_rates_over": won,
        "goal": answer_to_goal(run.goal.model_dump(), won["sft"], found["kl"]["kl_nats_per_token"], judge),
        "linear4bit_layers": found["linear4bit_layers"],
        "weights_bytes": found["weights_bytes"],
    }


def to_row(opinion: Opinion) -> dict[str, Any]:
    """As JSON keeps it."""
    return asdict(opinion)
