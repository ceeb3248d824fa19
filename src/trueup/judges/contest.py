"""All of an evaluation that needs the model: every contestant's answers, KL, and the judges that are on the same base.

What is found is kept in the half-built stage, so that people can be waited for without the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from trueup import ranks
from trueup.chat.template import Chat
from trueup.data.dialogue import Messages
from trueup.evaluation import compare
from trueup.evaluation.contestants import REFERENCE, SFT, Contestant
from trueup.judges import disjoint, trust
from trueup.judges.headline import Opinion, to_row
from trueup.judges.optimized import Optimized
from trueup.judges.protocol import Answer, ByScore, Judge, Question, preference
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
FURTHER = 50_021  # from a seed to that of the answers of which the best is chosen


@dataclass(frozen=True)
class Contest:
    """Who answers which prompts, and where the adapters are."""

    run: RunFile
    contestants: dict[str, Contestant]
    rows: dict[str, list[int]]  # of each: the places of the prompts that it answered
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
    steps: dict[str, Path] = field(default_factory=dict)  # checkpoints of `aligned`, by label


def measured(contest: Contest, out: Path) -> Row:
    """`measure`, or what an interrupted evaluation kept of it in `out`."""
    path = out / f"measured{KEPT}"
    if rows := ranks.from_first(lambda: read_appended(path)[0]):  # the others keep nothing
        found: Row = rows[-1]
        every = {label: list(range(len(some))) for label, some in found["done"].items()}
        return {"rows": every} | found  # earlier versions asked everybody everything
    found = measure(contest, out)
    append_jsonl(path, [found])
    return found


def measure(contest: Contest, out: Path) -> Row:
    """JSON: `metrics` by contestant, of a checkpoint with its KL from SFT, `kl`, `done` (what was sampled), `scores`
    (of what was optimized), and more.

    `disjoint` is that judge's opinion, and `no_disjoint` why there is none. The best of n answers is chosen by what was
    optimized.
    """
    run = contest.run
    tokenizer = base.load_tokenizer(run.model)
    bare = base.load_base(run.model.base, four_bit=run.adapter.kind != "lora", dtype=run.model.dtype)
    model = adapters.load_adapter(bare, contest.aligned, trainable=False)
    adapters.load_frozen(model, contest.sft, SFT)
    if contest.reference != contest.sft:
        adapters.load_frozen(model, contest.reference, REFERENCE)
    for label, folder in contest.steps.items():
        adapters.load_frozen(model, folder, label)
    head = None if contest.reward is None else scoring.load_reward(model, contest.reward, combination(run))
    prompts, temperature, chat = contest.prompts, contest.sampling.temperature, Chat(tokenizer)
    done: dict[str, list[Sampled]] = {}
    scores: dict[str, list[float]] = {}
    metrics: Row = {}
    ran: Counter[str] = Counter()
    optimized = Optimized(model, tokenizer, head, contest.parts)

    with bars("evaluate") as bar:

        def shown(what: str, total: int) -> Callable[[int], None]:
            return partial(bar.advance, bar.add_task(what, total=total))

        for label, one in contest.contestants.items():
            n, sampling = one.best_of, contest.sampling
            put = [messages for messages in one.prompts for _ in range(n)]
            if n > 1:  # other draws than those that the same adapter is compared with
                sampling = replace(sampling, seed=sampling.seed + FURTHER)
            advance, kept = shown(f"answers of {label}", len(put)), Kept(out, f"answers-{label}")
            every = compare.answers(model, tokenizer, one.adapter, put, sampling, advance, kept)
            done[label] = every
            if n > 1:
                advance = shown(f"rewards of {label}", len(every))
                places, found = optimized.best([prompts[i] for i in one.rows], every, n, advance)
                done[label] = [every[i] for i in places]
                scores[label] = [max(found[start : start + n]) for start in range(0, len(found), n)]
            read = [chat.prompt(messages) for messages in one.prompts]
            metrics[label] = compare.described(done[label], every, read, kept.seconds)
            ran.update(kept.ran)
        alike: dict[tuple[int, ...], dict[str, list[Sampled]]] = {}  # who answered the same prompts, scored in one pass
        for label, answers in done.items():
            if label not in scores:
                alike.setdefault(tuple(contest.rows[label]), {})[label] = answers
        for rows, some in alike.items():
            advance = shown("rewards", len(some) * len(rows))
            scores |= optimized.scores([prompts[i] for i in rows], some, advance)
        advance = shown("KL", len(prompts) * (1 + (contest.reference != contest.sft) + len(contest.steps)))
        kl = compare.kl_to_both(model, tokenizer, prompts, done["aligned"], temperature, advance)
        for label in contest.steps:
            own = compare.kl_of(model, tokenizer, label, SFT, prompts, done[label], temperature, advance)
            metrics[label]["kl_nats_per_token"] = own
        opinion, why = _disjoint(contest, model, tokenizer, done, bar)
        others = {} if contest.abilities is None else contest.abilities(model, tokenizer, shown)
    return {
        "metrics": metrics,
        "kl": kl,
        "rows": contest.rows,
        "done": {label: [_row(one) for one in found] for label, found in done.items()},
        "scores": {label: scores[label] for label in done},
        "reward_functions": {part.name: part.weight for part in contest.parts},
        "temperature": temperature,
        "disjoint": opinion and to_row(opinion),
        "no_disjoint": why,
        "abilities": others,
        "sampling": used(contest.sampling, tokenizer, model, ran),
        "linear4bit_layers": len(base.linear4bit_layers(model)),
        "weights_bytes": base.weights_bytes(model) + engine_bytes(model, contest.sampling.engine),
    }


def _disjoint(
    contest: Contest, model: Any, tokenizer: Any, done: dict[str, list[Sampled]], bar: Any
) -> tuple[Opinion | None, str]:
    """(the disjoint judge's opinion, why there is none)."""
    if contest.feedback is None:
        return None, "nobody judged answers in this run"
    learned = disjoint.examples([*contest.earlier, contest.feedback])
    if why := learned.too_few():
        return None, why
    task = bar.add_task("disjoint judge", total=None)
    states = partial(compare.states, model, SFT, advance=partial(bar.advance, task))
    chat = Chat(tokenizer)
    judge = disjoint.train(learned, chat, states, disjoint.encoder(chat))
    trusted = trust.measure(judge, contest.feedback.pairs("train"), "pairs that the aligned model learned from")
    return replace(by_score("disjoint", judge, contest, done, trusted), learned_from=learned.counts), ""


def opinion(kind: Kind, judge: Judge, asked: dict[str, list[Question]], trusted: Row | None) -> Opinion:
    """What `judge` says of the aligned answers beside those of each other contestant."""
    judged = {label: judge.judge(some) for label, some in asked.items()}
    notes = {label: one.notes for label, one in judged.items() if one.notes}
    return Opinion(kind, judge.name, {label: one.answers for label, one in judged.items()}, trusted, notes)


def by_score(
    kind: Kind, judge: ByScore, contest: Contest, done: dict[str, list[Sampled]], trusted: Row | None
) -> Opinion:
    """The same of a judge that scores each answer once, and compares everybody with SFT for nothing more."""
    asked, more = questions(contest, done), questions(contest, done, beside="sft")
    judged = iter(judge.judge([one for some in (*asked.values(), *more.values()) for one in some]).answers)
    answers, over_sft = (
        {label: [next(judged) for _ in some] for label, some in each.items()} for each in (asked, more)
    )
    return Opinion(kind, judge.name, answers, trusted, over_sft=over_sft)


def questions(contest: Contest, done: dict[str, list[Sampled]], beside: str = "aligned") -> dict[str, list[Question]]:
    """Of each other contestant: its answers and those of `beside`. The aligned model's come first, and SFT's last."""

    def question(i: int, other: Sampled) -> Question:
        both = (done[beside][i], other) if beside == "aligned" else (other, done[beside][i])
        return Question(contest.prompt_ids[i], contest.prompts[i], *map(_answer, both))

    return {
        label: [question(i, other) for i, other in zip(contest.rows[label], done[label], strict=True)]
        for label in done
        if label not in ("aligned", beside)
    }


def by_optimized(contest: Contest, scores: dict[str, list[float]], trusted: Row | None) -> Opinion:
    """What was optimized, as a judge; with a method that optimizes no reward, the reward model of the same labels.

    Its scores of each contestant's answers are `scores`.
    """
    optimizes = isinstance(contest.run.section(contest.run.method), RewardSettings)
    name = FUNCTIONS if contest.reward is None else OPTIMIZED if optimizes else SAME_LABELS

    def beside(other: str, label: str) -> list[tuple[float, float]]:
        return [(scores[other][i], own) for i, own in zip(contest.rows[label], scores[label], strict=True)]

    others = [label for label in scores if label != "aligned"]
    answers: dict[str, list[float | None]] = {
        label: [preference(mine, other) for mine, other in beside("aligned", label)] for label in others
    }
    over_sft: dict[str, list[float | None]] = {
        label: [preference(own, before) for before, own in beside("sft", label)] for label in others if label != "sft"
    }
    return Opinion("optimized", name, answers, trusted, over_sft=over_sft)


def sampled(row: Row) -> Sampled:
    """An answer as `measured` keeps it."""
    return Sampled(**row)


def _row(one: Sampled) -> Row:
    return asdict(one)


def _answer(one: Sampled) -> Answer:
    return Answer(one.text, tuple(one.ids), one.finish == "eos")
