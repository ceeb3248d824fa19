"""Every aligned model against SFT and the other contestants: win rates with intervals, lengths, endings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trueup import drawing
from trueup.evaluation import abilities
from trueup.evaluation.contestants import name_of
from trueup.page import Page
from trueup.report import rows, words
from trueup.report.gathered import Aligned, Gathered
from trueup.run.goal import judge_of

Row = dict[str, Any]
MORE = {"ties": "ties", "length_controlled": "at equal length"}  # of a win rate: its key, and its column
KNOWN = ("estimate", "low", "high", "num_prompts", *MORE)


def add(page: Page, gathered: Gathered) -> None:
    """Every comparison of the judges that give the verdicts, and the answers of each contestant."""
    found = _shown(rows.contestants(gathered))
    several = len({(row["round"], row["adapter"]) for row in found}) > 1
    figures = {(one.built.round, one.built.name): one.evaluation.metrics for one in gathered.aligned if one.evaluation}
    drawn, table = [], []
    for row in found:
        other = name_of(row["over"], figures[row["round"], row["adapter"]])
        own = f"{row['adapter']}, round {row['round']}"
        label = f"{own}, over {other}" if several else f"over {other}"
        drawn.append(drawing.Interval(label, row["win_rate"], row["low"], row["high"], row["gives_the_verdict"]))
        more = [_figure(row, name) for name in MORE]
        table.append([own, other, _figure(row, "win_rate", ""), *more, f"{row['num_prompts']:,.0f}", row["judge"]])
    page.plot(
        drawing.forest(drawn),
        "Share of the comparisons that each aligned model wins, with 95% intervals; even at the dashed line. Ties "
        f"count half.{' Hollow: by another judge than that of the verdict.' if any(not d.main for d in drawn) else ''}",
    )
    header = ["aligned model", "over", "comparisons won", *MORE.values(), "prompts", "judge"]
    page.table(*_known(header, table), caption="The same in figures")
    _others(page, gathered)
    _answers(page, gathered)
    for one in gathered.aligned:
        if one.evaluation is not None and (lost := abilities.says(one.evaluation.metrics)):
            page.heading(f"What {one.built.title} may have lost", 3).bullets(lost)


def _shown(found: Sequence[Row]) -> list[Row]:
    """The comparisons of the verdict's judge, and, of contestants that it did not compare, those of another.

    People are asked about SFT alone. What was optimized comes last.
    """
    chosen: dict[tuple[object, ...], Row] = {}
    for row in sorted(found, key=lambda row: (not row["gives_the_verdict"], row["judge_kind"] == "optimized")):
        chosen.setdefault((row["round"], row["adapter"], row["over"]), row)
    kept = set(map(id, chosen.values()))
    return [row for row in found if id(row) in kept]


def _figure(row: Row, name: str, prefix: str | None = None) -> str | None:
    """A share among the columns of a row, with its interval where there is one; None where the record lacks it."""
    if (value := row.get(name)) is None:
        return None
    before = f"{name}_" if prefix is None else prefix
    if f"{before}low" not in row:
        return f"{value:.1%}"
    return words.share({"estimate": value, "low": row[f"{before}low"], "high": row[f"{before}high"]})


def _known(header: Sequence[str], table: Sequence[Sequence[object]]) -> tuple[list[str], list[list[object]]]:
    """Header and rows without the columns of which nothing is known."""
    kept = [column for column in range(len(header)) if any(row[column] is not None for row in table)]
    return [header[column] for column in kept], [[row[column] for column in kept] for row in table]


def _others(page: Page, gathered: Gathered) -> None:
    """Shares that this version has no place for: those of a later one, or of an evaluation of somebody's own."""
    table = []
    for one in gathered.aligned:
        metrics = one.evaluation.metrics if one.evaluation else {}
        for label, won in metrics.get("win_rates_over", {}).items():
            over = f"over {name_of(label, metrics)}"
            for name, value in won.items():
                if name not in KNOWN:
                    said = words.share(value) if _is_share(value) else str(value)
                    table.append([one.built.title, f"{words.spoken(name)}, {over}", said])
        for name, value in metrics.items():
            if name.startswith("win_rate") or name in ("with_people", "judge", "judges", "abilities"):
                continue
            if _is_share(value):
                table.append([one.built.title, words.spoken(name), words.share(value)])
            elif isinstance(value, dict):
                table += [
                    [one.built.title, f"{words.spoken(name)}, {name_of(label, metrics)}", words.share(share)]
                    for label, share in value.items()
                    if _is_share(share)
                ]
    if table:
        page.table(["aligned model", "figure", "found"], table, "What else was measured")


def _is_share(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(k), int | float) for k in ("estimate", "low", "high"))


def _answers(page: Page, gathered: Gathered) -> None:
    """Whose answers they are: all contestants of the headline's evaluation, and the aligned model of each other."""
    table = []
    for one in gathered.aligned:
        if one.evaluation is not None:
            scores = [row.get("reward", {}) for row in one.evaluation.rows("answers.jsonl")]
            labels = rows.answering(one.evaluation) if one is gathered.headline else ["aligned"]
            table += [_answer(one, one.evaluation.metrics, label, scores) for label in labels]
    names = ["wins over SFT", "tokens on average", "end by themselves", "tokens read and sampled", "KL from SFT"]
    page.table(*_known(["whose answers", *names, "optimized reward"], table), caption="Their answers")


def _answer(one: Aligned, metrics: Row, label: str, scores: Sequence[Row]) -> list[object]:
    mine = [row[label] for row in scores if isinstance(row.get(label), int | float)]
    judge, sampled = judge_of(metrics), metrics[label]
    over_sft = metrics["judges"][judge["kind"]].get("win_rates_over_sft", {}) if judge else {}
    won = one.won if label == "aligned" else over_sft.get(label)
    read, kl = sampled.get("prompt_tokens"), rows.kl_of(metrics, label)
    return [
        one.built.title if label == "aligned" else name_of(label, metrics),
        words.share(won) if won else None,
        f"{sampled['mean_length_tokens']:.1f}",
        f"{sampled['eos_rate']:.1%}",
        None if read is None else f"{read + sampled.get('sampled_tokens', 0):.0f}",
        None if kl is None else f"{kl:.3f}",
        f"{sum(mine) / len(mine):.2f}" if mine else None,
    ]
