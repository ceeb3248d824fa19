"""What `collect` says when it ends, and `status` afterwards: how people judged, and what no stage uses."""

from __future__ import annotations

from pathlib import Path

from trueup.feedback import use
from trueup.feedback.examples import in_words
from trueup.feedback.freezing import BETTER_ANSWERS
from trueup.run import enough
from trueup.run.files import read_json
from trueup.run.run_file import RunFile
from trueup.run.stage import Metrics


def says(metrics: Metrics, run: RunFile) -> list[str]:
    """How people judged, the pairs that gives, and the prompts that give none."""
    counts, became = metrics["counts"], metrics.get("became", {})
    judged = f"{counts['votes']:,} judgements"
    if became.keys() - {"thumb", "edit"} or not counts["votes"]:
        judged = f"{sum(sum(found.values()) for found in became.values()):,} judgements ({in_words(became)})"
    if "share_up" in metrics:
        judged += f", {metrics['share_up']:.0%} of {'them' if became.keys() <= {'thumb'} else 'the'} thumbs up"
    without = counts.get("prompts_without_pairs", 0)
    unusable = sum((metrics.get("unusable_annotations") or metrics.get("unusable_rows") or {}).values())
    more = (
        "rows, or verdicts in them, left out" if metrics.get("unusable_rows") else "more cannot be used"
    )  # a trace may bear no judgement
    return [
        f"{judged}, {unusable:,} {more}: {counts['pairs']:,} pairs; {without:,} prompts give none",
        *use.in_words(metrics.get("from_use", {})),
        *_set_aside(metrics),
        *enough.few(metrics.get("num_prompts", enough.JUDGED_PROMPTS), enough.JUDGED_PROMPTS, "judged prompts"),
    ]


def _set_aside(metrics: Metrics) -> list[str]:
    """What people did in Label Studio that no stage uses, a line each."""
    better = metrics.get("better_answers") or {}
    written, paired = better.get("num_written", 0), better.get("num_pairs", 0)
    unqualified = metrics.get("judgements_of_unqualified_people", 0)
    foreign, deleted = metrics.get("foreign_tasks", 0), metrics.get("labels_deleted_in_label_studio", 0)
    broken = len(metrics.get("store_lines_that_cannot_be_read", ()))
    asked, counts = metrics.get("asked") or {}, metrics.get("counts", {})
    disputed = metrics.get("num_disputed", 0) if not counts.get("adjudicated") and "interface" in metrics else 0
    settled, overruled = counts.get("adjudicated", 0), counts.get("overruled_by_adjudication", 0)
    lines = {
        _of_checks(metrics, "gold", "right", asked.get("gold", 0)): asked.get("gold", 0),
        _of_checks(metrics, "repeated", "the same again", asked.get("repeated", 0)): asked.get("repeated", 0),
        f"disputed: {disputed:,}; to have one person settle them: --adjudicate": disputed,
        f"adjudicated: {settled:,}, which overruled {overruled:,} judgements and upheld "
        f"{counts.get('upheld_by_adjudication', 0):,}": settled,
        f"better answers written by people: {written:,}, {paired:,} of them pairs with the original; sft trains on "
        f"them once {BETTER_ANSWERS} there is in data.demonstrations": written,
        f"judgements of people who are not qualified, which do not count: {unqualified:,}": unqualified,
        f"tasks that trueup did not publish, left alone: {foreign:,}": foreign,
        f"annotations that were deleted in Label Studio and do not count: {deleted:,}": deleted,
        f"lines of the store that cannot be read: {broken:,}": broken,
    }
    return [line for line, number in lines.items() if number]


def _of_checks(metrics: Metrics, kind: str, what: str, number: int) -> str:
    """How often people were right on gold, or said the same again."""
    share = (metrics.get(kind) or {}).get("all")
    found = f"{share['estimate']:.0%} of {share['num']:,} judgements {what}" if share else "nobody judged them"
    return f"{kind} questions: {number:,}, {found}"


def how_far(run_dir: Path) -> str:
    """Of people who are not done: how many completions are judged."""
    known = read_json(run_dir / "store" / "progress.json") or {}
    if not {"labelled", "wanted"} <= known.keys():
        return ""
    return "; ".join([f"waiting for labels {known['labelled']}/{known['wanted']}", *known.get("notes", [])])
