"""All of an evaluation that needs the model: every contestant's answers, KL, and the judges that are on the same base.

What is found is kept in the half-built stage, so that people can be waited for without the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from trueup import ranks
from trueup.chat.template import Chat
from trueup.data.dialogue import Messages
from trueup.evaluation import compare
from trueup.judges import disjoint, trust
from trueup.judges.headline import Opinion, to_row
from trueup.judges.protocol import Answer, Judge, Question, preference
from trueup.judges.settings import Kind
from trueup.models import adapters, base, scoring
from trueup.online import rewards
from trueup.online.settings import RewardSettings, combination
from trueup.progress import bars
from trueup.run.artifacts import Feedback
from trueup.run.files import KEPT, append_jsonl, read_appended
from trueup.run.run_file import RunFile
from trueup.sampling.kept import Kept
from trueup.sampling.sample import engine_bytes, used
from trueup.sampling.types import Sampled, Sampling

Row = dict[str, Any]
OPTIMIZED = "the reward model that was optimized"
SAME_LABELS = "the reward model that learned from the same labels"
FUNCTIONS = "the reward functions that were optimized"
REFERENCE = "ref"  # the adapter that the round started from, in the model, where it is not SFT


@dataclass(frozen=True)
class Contest:
    """Who answers which prompts, and where the adapters are."""

    run: RunFile
    contestants: dict[str, tuple[str | None, list[Messages]]]  # label -> (adapter, prompts as it is asked them)
    prompts: list[Messages]
    prompt_ids: list[str]
    sampling: Sampling
    sft: Path
    reference: Path  # what the round started from: `sft` itself, or the winner of the round before
    aligned: Path
    reward: Path | None
    parts: list[rewards.Part]  # the functions that were optimized, where there is no reward model
    feedback: Feedback | None
    earlier: tuple[Feedback, ...] = ()  # of the rounds before, the first of them first
    abilities: Callable[..., Row] | None = None  # (model, tokenizer, bars) -> what else is measured


def measured(contest: Contest, out: Path) -> Row:
    """`measure`, or what an interrupted evaluation kept of it in `out`."""
    path = out / f"measured{KEPT}"
    if rows := ranks.from_first(lambda: read_appended(path)[0]):  # the others keep nothing
        found: Row = rows[-1]
        return found
    found = measure(contest, out)
    append_jsonl(path, [found])
    return found


def measure(contest: Contest, out: Path) -> Row:
    """JSON: `metrics` by contestant, `kl`, `done` (what was sampled), `scores` (of what was optimized), and more.

    `disjoint` is that judge's opinion, and `no_disjoint` why there is none.
    """
    run = contest.run
    tokenizer = base.load_tokenizer(run.model)
    bare = base.load_base(run.model.base, four_bit=run.adapter.kind != "lora", dtype=run.model.dtype)
    model = adapters.load_adapter(bare, contest.aligned, trainable=False)
    adapters.load_frozen(model, contest.sft, "sft")
    if contest.reference != contest.sft:
        adapters.load_frozen(model, contest.reference, REFERENCE)
    head = None if contest.reward is None else scoring.load_reward(model, contest.reward, combination(run))
    prompts, temperature = contest.prompts, contest.sampling.temperature
    done: dict[str, list[Sampled]] = {}
    metrics: Row = {}
    ran: Counter[str] = Counter()
    with bars("evaluate") as bar:

        def shown(what: str, total: int) -> Callable[[int], None]:
            return partial(bar.advance, bar.add_task(what, total=total))

        for label, (name, put) in contest.contestants.items():
            advance, kept = shown(f"answers of {label}", len(prompts)), Kept(out, f"answers-{label}")
            done[label], metrics[label] = compare.answers(model, tokenizer, name, put, contest.sampling, advance, kept)
            ran.update(kept.ran)
        if head is not None:
            advance = shown("rewards", len(done) * len(prompts))
            scores = compare.rewards_of_each(model, head, tokenizer, prompts, done, advance)
        else:
            texts = {label: [one.text for one in found] for label, found in done.items()}
            scores = {label: rewards.total(contest.parts, prompts, texts[label]) for label in texts}
        advance = shown("KL", len(prompts) * (1 + (contest.reference != contest.sft)))
        kl = compare.kl_to_both(model, tokenizer, prompts, done["aligned"], temperature, advance)
        asked = questions(contest, done)
        found, why = _disjoint(contest, model, tokenizer, asked, bar)
        others = {} if contest.abilities is None else contest.abilities(model, tokenizer, shown)
    return {
        "metrics": metrics,
        "kl": kl,
        "done": {label: [_row(one) for one in found] for label, found in done.items()},
        "scores": scores,
        "reward_functions": {part.name: part.weight for part in contest.parts},
        "temperature": temperature,
        "disjoint": found and to_row(found),
        "no_disjoint": why,
        "abilities": others,
        "sampling": used(contest.sampling, tokenizer, model, ran),
        "linear4bit_layers": len(base.linear4bit_layers(model)),
        "weights_bytes": base.weights_bytes(model) + engine_bytes(model, contest.sampling.engine),
    }


def _disjoint(
    contest: Contest, model: Any, tokenizer: Any, asked: dict[str, list[Question]], bar: Any
) -> tuple[Opinion | None, str]:
    """(the disjoint judge's opinion, why there is none)."""
    if contest.feedback is None:
        return None, "nobody judged answers in this run"
    learned = disjoint.examples([*contest.earlier, contest.feedback])
    if why := learned.too_few():
        return None, why
    task = bar.add_task("disjoint judge", total=None)
    states = partial(compare.states, model, "sft", advance=partial(bar.advance, task))
    chat = Chat(tokenizer)
    judge = disjoint.train(learned, chat, states, disjoint.encoder(chat))
    trusted = trust.measure(judge, contest.feedback.pairs("train"), "pairs that the aligned model learned from")
    return replace(opinion("disjoint", judge, asked, trusted), learned_from=learned.counts), ""


def opinion(kind: Kind, judge: Judge, asked: dict[str, list[Question]], trusted: Row | None) -> Opinion:
    """What `judge` says of the answers of each contestant."""
    judged = {label: judge.judge(some) for label, some in asked.items()}
    notes = {label: one.notes for label, one in judged.items() if one.notes}
    return Opinion(kind, judge.name, {label: one.answers for label, one in judged.items()}, trusted, notes)


def questions(contest: Contest, done: dict[str, list[Sampled]]) -> dict[str, list[Question]]:
    """Of each other contestant: its answers beside the aligned model's, which come first."""
    rows = list(zip(contest.prompt_ids, contest.prompts, strict=True))
    aligned = [_answer(one) for one in done["aligned"]]
    return {
        label: [
            Question(prompt_id, messages, mine, _answer(other))
            for (prompt_id, messages), mine, other in zip(rows, aligned, done[label], strict=True)
        ]
        for label in done
        if label != "aligned"
    }


def by_optimized(contest: Contest, scores: dict[str, list[float]], trusted: Row | None) -> Opinion:
    """What was optimized, as a judge; with a method that optimizes no reward, the reward model of the same labels.

    Its scores of each contestant's answers are `scores`.
    """
    optimizes = isinstance(contest.run.section(contest.run.method), RewardSettings)
    name = FUNCTIONS if contest.reward is None else OPTIMIZED if optimizes else SAME_LABELS
    answers: dict[str, list[float | None]] = {}
    for label, others in scores.items():
        if label != "aligned":
            pairs = zip(scores["aligned"], others, strict=True)
            answers[label] = [preference(mine, other) for mine, other in pairs]
    return Opinion("optimized", name, answers, trusted)


def sampled(row: Row) -> Sampled:
    """An answer as `measured` keeps it."""
    return Sampled(**row)


def _row(one: Sampled) -> Row:
    return asdict(one)


def _answer(one: Sampled) -> Answer:
    return Answer(one.text, tuple(one.ids), one.finish == "eos")
