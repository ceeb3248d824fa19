"""How the demo ends: a table, three answers before and after, paths, and the same figures in summary.json."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from trueup.run.artifacts import read_jsonl, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from trueup.run.pipeline import Pipeline

NUM_ANSWERS = 3


def make(pipeline: Pipeline, *, simulated: bool, wall_s: float) -> dict[str, Any]:
    """Collect the figures of a finished run from its records, and write runs/<name>/summary.json.

    `wall_s` is the time of this call, people and servers included; what was complete already cost it nothing.
    With simulated annotators the win rate is that of their hidden preference; with people it is the report's.
    """
    from trueup.evaluation import intervals
    from trueup.run.goal import judge_of, won_by

    records = {stage.name: stage.makes(pipeline.path(stage.name)).record() for stage in pipeline.order()}
    report, method = records["evaluate"]["metrics"], pipeline.run.method
    headline, known = won_by(report), judge_of(report)
    win_rate, judge = headline, known["name"] if known else "reward model"
    if simulated:
        from trueup.demo.hidden_preference import score

        answers = list(read_jsonl(pipeline.path("evaluate") / "answers.jsonl"))
        outcomes = intervals.wins([score(a["aligned"]) for a in answers], [score(a["sft"]) for a in answers])
        win_rate = intervals.win_rate(outcomes, [a["prompt_id"] for a in answers])
        judge = "hidden preference of the simulated annotators"
    found = {
        "method": method,
        "seed": pipeline.run.seed,
        "judge": judge,
        "win_rate": {key: win_rate[key] for key in ("estimate", "low", "high")},
        "win_rate_by_reward_model": report["win_rate_by_reward_model"],
        "win_rate_by_judge": headline | {"judge": known["name"], "trust": known["trust"]} if known else None,
        "num_prompts": win_rate["num_prompts"],
        "kl_nats_per_token": report["kl_nats_per_token"],
        "mean_length_tokens": {"before": report["sft"]["mean_length_tokens"]}
        | {"after": report["aligned"]["mean_length_tokens"]},
        "eos_rate": {"before": report["sft"]["eos_rate"], "after": report["aligned"]["eos_rate"]},
        "tokens_per_s": {"before": report["sft"]["tokens_per_s"], "after": report["aligned"]["tokens_per_s"]},
        "annotator_agreement": records["collect"]["metrics"]["agreement"],
        "hidden_preference_length_correlation": _length_correlation(pipeline) if simulated else None,
        "reward_held_out_accuracy": records["reward"]["metrics"].get("held_out_accuracy"),
        "seconds": {name: record["wall_s"] for name, record in records.items()},
        "seconds_in_all": round(sum(record["wall_s"] for record in records.values()), 1),
        "wall_s": round(wall_s, 1),
        "linear4bit_layers": report["linear4bit_layers"],
        "weights_bytes": max(r["metrics"].get("weights_bytes", 0) for r in records.values()),
        "peak_rss_bytes": max(record["peak_rss_bytes"] for record in records.values()),
    }
    write_json(pipeline.folder / "summary.json", found)
    return found


def _length_correlation(pipeline: Pipeline) -> float | None:
    """Pearson's r of hidden preference and length in tokens, on what SFT sampled; None where one is constant."""
    from trueup.demo.hidden_preference import score

    rows = list(read_jsonl(pipeline.path("sample") / "completions.jsonl"))
    try:
        return statistics.correlation([score(r["completion"]) for r in rows], [r["num_tokens"] for r in rows])
    except statistics.StatisticsError:
        return None


def show(found: dict[str, Any], pipeline: Pipeline, console: Console) -> None:
    """Print what `make` found, as a newcomer reads it."""
    from rich.table import Table
    from rich.text import Text

    from trueup.evaluation import standings

    win = found["win_rate"]
    console.rule(f"SFT against {found['method']}, {found['num_prompts']} held-out prompts", style="bold")
    console.print(
        f"The aligned answer is preferred in {win['estimate']:.1%} of the comparisons "
        f"(95% interval {win['low']:.1%} to {win['high']:.1%}, by prompt).\nJudge: {found['judge']}."
    )
    if (judged := found["win_rate_by_judge"]) and judged["judge"] != found["judge"]:
        console.print(
            f"The report, which does not know it, says {judged['estimate']:.1%} ({judged['low']:.1%} to "
            f"{judged['high']:.1%}), judged by {judged['judge']}."
        )
    table = Table("", "SFT", "aligned")
    table.add_row("win rate", f"{1 - win['estimate']:.1%}", f"{win['estimate']:.1%}")
    table.add_row("KL from SFT, nats per token", "0", f"{found['kl_nats_per_token']:.3f}")
    for title, key, form in (
        ("mean length, tokens", "mean_length_tokens", "{:.1f}"),
        ("answers that end by themselves", "eos_rate", "{:.1%}"),
        ("tokens/s", "tokens_per_s", "{:.0f}"),
    ):
        table.add_row(title, form.format(found[key]["before"]), form.format(found[key]["after"]))
    console.print(table)
    console.print(
        f"{found['linear4bit_layers']} 4-bit layers, one base: {found['weights_bytes'] / 1e6:.0f} MB with all "
        f"adapters; peak memory {found['peak_rss_bytes'] / 1e9:.1f} GB; {found['wall_s'] / 60:.1f} minutes."
    )
    metrics = pipeline.stages["evaluate"].makes(pipeline.path("evaluate")).record()["metrics"]
    for line in standings.lines(metrics):
        console.print(Text(line), soft_wrap=True)
    agreement, correlation = found["annotator_agreement"], found["hidden_preference_length_correlation"]
    if agreement is not None and correlation is not None:
        console.print(
            f"The simulated annotators agree on {agreement:.0%} of what two of them judged; "
            f"their hidden preference correlates {correlation:+.2f} with length."
        )
    answers = list(read_jsonl(pipeline.path("evaluate") / "answers.jsonl"))
    console.rule(f"{NUM_ANSWERS} of the answers, evenly spaced, not chosen", style="dim")
    for answer in answers[:: max(1, len(answers) // NUM_ANSWERS)][:NUM_ANSWERS]:
        console.print(Text(answer["messages"][-1]["content"], style="bold"))
        console.print(Text(f"  before: {answer['sft']}"))
        console.print(Text(f"  after:  {answer['aligned']}", style="green"))
    console.rule("where it is", style="dim")
    for name in (found["method"], "export"):
        console.print(Text(f"{name:9} {pipeline.path(name)}"), soft_wrap=True)
    console.print(Text(f"report    {pipeline.folder / 'report.html'}"), soft_wrap=True)
    console.print(Text(f"curves    {pipeline.folder / 'curves.html'}"), soft_wrap=True)
    console.print(Text(f"records   {pipeline.folder}/**/record.json"), soft_wrap=True)
    console.print(Text(f"summary   {pipeline.folder / 'summary.json'}"), soft_wrap=True)
