"""What the records of a run say to a stranger: what was learned from, who judged, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trueup.export.markdown import code, escape
from trueup.export.receipt import Receipt
from trueup.run.artifacts import read_jsonl
from trueup.run.files import read_json
from trueup.run.goal import judge_of, trusted, won_by
from trueup.run.goal import verdict as in_words

SIMULATED = "simulated.json"  # in the run's store: the ids of annotators that are programs
Records = Sequence[dict[str, Any]]  # record.json of each complete stage, in order


def trained_on(records: Records) -> str:
    """How many demonstrations it was fine-tuned on, and the method of alignment, a sentence."""
    sft = _last(records, "sft")
    if sft is None:
        return "What it was fine-tuned on is not recorded."
    held_out = sft["metrics"].get("num_held_out") or 0
    return (
        f"Supervised fine-tuning saw {_many(sft['metrics'].get('num_train', 0), 'demonstration')}"
        + (f", {held_out:,} more were held out" if held_out else "")
        + "."
    )


def judges(records: Records, round_dir: Path, method: str) -> str:
    """Who judged what a round learned from, as far as it is recorded, and how far they agreed."""
    functions = _functions(records, method)
    said = []
    if functions:
        said.append(f"The method was rewarded by functions: {functions}.")
    if several := _members(records, method):
        said.append(several)
    collect = _last(records, "collect")
    if collect is None:
        return " ".join([*said, "Nobody's judgements are recorded in this run."])
    metrics = collect["metrics"]
    if "num_judged" in metrics:
        named, unnamed = metrics.get("num_annotators", 0), metrics.get("num_unnamed", 0)
        who = f"{_many(named, 'annotator')} gave them" if named else "who gave them is not recorded"
        who += f", and of {_many(unnamed, 'judgement')} it is not recorded who did" if named and unnamed else ""
        before = f"{_many(metrics['num_judged'], 'preference')} that existed before{_over(metrics, 'over')}"
        said.append(f"It learned from {before}; {who}.")
        return " ".join(said)
    annotators = {str(row["annotator"]) for row in _annotations(round_dir)}
    programs = set((read_json(round_dir.parent / "store" / SIMULATED) or {}).get("annotators", ()))
    number, simulated = metrics.get("num_annotators", len(annotators)), len(annotators & programs)
    who = _many(number, "annotator")
    if simulated and simulated >= number:
        who += ", **all simulated by a program: no person judged**,"
    elif simulated:
        who += f", {simulated} of them simulated by a program,"
    said.append(f"{who} gave {_judgements(metrics)}.")
    if simulated < number:
        said.append(f"Whether {'the others' if simulated else 'annotators'} are people is not recorded.")
    agreement = metrics.get("agreement")
    said.append(
        "No two annotators judged the same answer, so their agreement is not known."
        if agreement is None
        else f"Where two judged the same answer they agree in {agreement:.0%} of {metrics['num_compared']:,} cases."
    )
    return " ".join(said)


def verdict(records: Records, fingerprint: str) -> str:
    """Whether it got better, who says so, and with what interval; of the weights with this fingerprint alone."""
    of_these = [r for r in records if r["stage"] == "evaluate" and r["inputs"].get("aligned") == fingerprint]
    if not of_these:
        return "These weights were not evaluated: whether they are better than their base is not known."
    metrics = of_these[-1]["metrics"]
    functions, judge = metrics.get("reward_functions"), judge_of(metrics)
    optimized = (
        f"the functions that were optimized ({', '.join(code(name) for name in functions)}); no person was asked"
        if functions
        else "the run's reward model, which learned from the same judgements; no person judged these answers"
    )
    own = judge is not None and judge["kind"] != "optimized"
    who = escape(trusted(judge)) if judge is not None and own else f"The judge is {optimized}."
    lengths = (metrics[label].get("mean_length_tokens") for label in ("sft", "aligned"))
    before, after = (f"{length:.1f}" for length in lengths)
    return (
        f"{escape(in_words(won_by(metrics), judge=judge))} {who} KL from the fine-tuned model: "
        f"{metrics['kl_nats_per_token']:.3f} nats per token; mean length {before} tokens before, {after} after. The "
        "prompts are of the same kind as those it learned from."
    )


def measured(receipt: Receipt) -> str:
    """How far each way of loading the export is from the model that was trained: sentences and a table."""
    rows = "".join(
        f"| {escape(way.path)} | {escape(way.how)} | {_figure(way.kl_nats_per_token, '.4f')} | "
        f"{_figure(way.agreement, '.1%')} | {escape(way.why_not or '')} |\n"
        for way in receipt.ways
    )
    moved = receipt.moved_by_alignment
    said = [
        f"The model that was trained and judged is {escape(receipt.trained_as)}. Each way of loading this export was "
        f"compared with it on {escape(receipt.texts)} ({receipt.num_tokens:,} tokens).",
        *(
            []
            if moved is None
            else [
                f"Alignment moved the model by {moved:.4f} nats per token, measured in the same way on the same texts."
            ]
        ),
        *(escape(note) for note in receipt.notes),
    ]
    head = "| what | loaded how | KL, nats per token | same greedy token | |\n|---|---|---|---|---|\n"
    return "\n".join(said) + f"\n\n{head}{rows}"


def brief(metrics: dict[str, Any]) -> str:
    """A few figures of a stage, for one cell of a table."""
    numbers = [
        f"{key} {value:.4g}"
        for key, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return ", ".join(numbers[:6]).replace("_", "\\_")


def _figure(value: float | None, form: str) -> str:
    return "not measured" if value is None else format(value, form)


def _functions(records: Records, method: str) -> str:
    aligned = _last(records, method)
    named = (aligned or {}).get("config", {}).get("reward_functions") or {}
    return ", ".join(f"{code(name)} (weight {weight:g})" for name, weight in named.items())


def _members(records: Records, method: str) -> str:
    """How several reward models were made one, in a sentence; nothing where the method optimized at most one."""
    reward, settings = _last(records, "reward"), (_last(records, method) or {}).get("config", {})
    number = 1 if reward is None else reward["config"].get("members", 1)
    if number == 1 or not settings.get("reward_model_weight"):
        return ""
    how = {
        "mean": "the mean of their scores",
        "min": "the smallest of their scores",
        "mean_minus_variance": "the mean of their scores less "
        f"{settings.get('variance_coefficient', 0):g} times their variance",
    }
    return f"The method was rewarded by {number} reward models of these judgements: {how[settings['combine']]}."


def _annotations(round_dir: Path) -> list[dict[str, Any]]:
    path = round_dir / "collect" / "annotations.jsonl"
    return list(read_jsonl(path)) if path.exists() else []


def _judgements(metrics: dict[str, Any]) -> str:
    """How many judgements of which kinds; before there were kinds, all were thumbs."""
    others = {kind: sum(found.values()) for kind, found in metrics.get("became", {}).items() if kind != "thumb"}
    votes = metrics.get("counts", {}).get("votes", 0)
    thumbs = f"{_many(votes, 'judgement')} (thumb up or down)" if votes or not others else ""
    said = " and ".join([*filter(None, [thumbs]), *(_many(count, kind) for kind, count in others.items())])
    return f"{said}{_over(metrics)}" + (f"; {metrics.get('share_up', 0):.0%} are thumbs up" if thumbs else "")


def _over(metrics: dict[str, Any], how: str = "of answers to") -> str:
    return f" {how} {_many(metrics['num_prompts'], 'prompt')}" if "num_prompts" in metrics else ""


def _last(records: Records, stage: str) -> dict[str, Any] | None:
    return next((record for record in reversed(records) if record["stage"] == stage), None)


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
