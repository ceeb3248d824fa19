"""curves.html: what the metrics.jsonl of each training stage of a run says, as plots per step, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup import drawing
from trueup.page import Page
from trueup.run.files import read_appended

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "curves.html"
Row = dict[str, Any]
Lines = dict[str, str]  # key of a row -> its name in the legend

SUPERVISED: dict[str, Lines] = {  # words below a plot -> what it shows
    "Loss of each step; where rows are held out, also their loss after each epoch": {
        "loss": "training",
        "eval_loss": "held out",
    },
    "Share of the pairs in which the chosen answer scores higher than the rejected one": {
        "accuracy": "reward model",
        "rewards/accuracies": "implicit reward",
    },
    "Score of the chosen answer less that of the rejected one, mean of the step": {
        "margin": "reward model",
        "rewards/margins": "implicit reward",
    },
    "Implicit reward of the answers, mean of the step": {
        "rewards/chosen": "thumbs up",
        "rewards/rejected": "thumbs down",
    },
    "Estimated KL from the reference, nats per answer": {"kl": "KL"},
    "Norm of the gradient": {"grad_norm": "norm"},
    "Learning rate": {"learning_rate": "learning rate"},
}
ONLINE: dict[str, Lines] = {
    "Reward: mean of the rollout, the penalty for a missing end included": {"reward": "reward"},
    "KL to the reference, nats per token": {"kl": "KL"},
    "Entropy, nats per token": {"entropy": "entropy"},
    "Share of the tokens whose ratio was clipped": {"clip_fraction": "share"},
    "Variance of the returns that the value explains: 1 is all, 0 no better than a constant": {
        "explained_variance": "variance"
    },
    "Length of the completions, tokens": {"length_tokens": "length"},
    "Share of the completions that end by themselves": {"eos_rate": "share"},
    "Completion tokens per second, rollout and update together": {"tokens_per_s": "speed"},
}


def write(run_dir: Path, name: str) -> Path | None:
    """Write `run_dir`/curves.html for the run called `name`; None, and no page, where no stage has trained yet."""
    found = rows_of_stages(run_dir)
    if not found:
        return None
    page = Page(f"{name}: training, step by step")
    for title, rows in found.items():
        _stage(page, title, rows)
    return page.write(run_dir / PAGE)


def rows_of_stages(run_dir: Path) -> dict[str, list[Row]]:
    """(what the stage is called, its rows) of every stage that has logged steps, those of each round in order of time.

    A stage that is being built is among them; what --rebuild has put aside is not.
    """
    rounds = sorted(run_dir.glob("round-*"), key=lambda path: (len(path.name), path.name))
    found: dict[str, list[Row]] = {}
    for folder in (run_dir, *rounds):
        logs = [log for log in folder.glob("*/metrics.jsonl") if ".old-" not in log.parent.name]
        for log in sorted(logs, key=lambda path: path.stat().st_mtime):
            stage, of_round = log.parent.name, "" if folder == run_dir else f", {folder.name.replace('-', ' ')}"
            unfinished = ", not finished" if stage.endswith(".partial") else ""
            rows = [row for row in read_appended(log)[0] if isinstance(row.get("step"), int)]
            if rows:
                found[f"{stage.removesuffix('.partial')}{of_round}{unfinished}"] = rows
    return found


def _stage(page: Page, title: str, rows: list[Row]) -> None:
    page.heading(title)
    said = [(row["step"], sentence) for row in rows for sentence in row.get("warnings", ())]
    steps = max(row["step"] for row in rows)
    page.text(
        f"{steps:,} {'step' if steps == 1 else 'steps'}; {len(said)} {'warning' if len(said) == 1 else 'warnings'}."
    )
    if said:
        page.table(("step", "what is off"), said)
    page.plots(plots(rows))


def plots(rows: list[Row], besides: tuple[str, ...] = ()) -> list[tuple[Figure, str]]:
    """(figure, what it shows) of what a stage's rows hold; the keys `besides` are left out."""
    found = []
    for words, named in (ONLINE if any("reward" in row for row in rows) else SUPERVISED).items():
        points = {
            label: [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
            for key, label in named.items()
            if key not in besides
        }
        if some := {label: one for label, one in points.items() if one}:
            found.append((drawing.lines(some), f"{words}.{drawing.thinned(some)}"))
    return found
