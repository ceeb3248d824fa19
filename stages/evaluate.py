"""evaluate: (Adapters, RewardModel, Feedback, held-out prompts) -> Report. SFT against the aligned adapter."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator, model_validator

from trueup import ranks
from trueup.data.dialogue import Messages
from trueup.evaluation import baselines, best_of, contestants, saying
from trueup.evaluation.abilities import AbilitySettings
from trueup.evaluation.baselines import Baseline
from trueup.judges.settings import JudgeSettings
from trueup.online.settings import RewardSettings, by_functions, files_of_functions
from trueup.planning import loads
from trueup.run import naming
from trueup.run.artifacts import Adapter, Feedback, Report, RewardModel
from trueup.run.data_config import Shot
from trueup.run.goal import ROUND_BEFORE
from trueup.run.run_file import RunFile
from trueup.run.section import AlignmentSection
from trueup.run.stage import Context, Metrics, Stage
from trueup.sampling.types import Engine

if TYPE_CHECKING:
    from trueup.planning.lengths import Lengths


OUTSIDE = ("function", "endpoint")  # judges that learned nothing from the run's answers
SAMPLED_BY = ("max_new_tokens", "temperature", "top_p", "batch_size", "engine")
# Answers are sampled before anybody judges: another judge, or another rule for refusals, leaves them as they are.
LATE = (*JudgeSettings.model_fields, "refusal_openings", "refusal_function", "reward function", "refusal function")


class Config(JudgeSettings, AbilitySettings):
    """How the held-out prompts are answered, and who judges."""

    num_completions: PositiveInt = 2
    """Completions for each held-out prompt."""
    max_new_tokens: PositiveInt = 64
    """The maximum length of a completion, in tokens; longer ones are cut."""
    temperature: NonNegativeFloat = 1.0
    """The sampling temperature, a factor that divides the logits; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: each token is drawn from the likeliest ones that together hold this share of the probability; 1
    draws from all."""
    batch_size: PositiveInt = 64
    """Completions that are sampled at once."""
    engine: Engine = "auto"
    """What samples: `auto` is our own decoder where it knows the model, else `generate` of transformers; `merged` is
    our decoder on a copy of base plus adapter in 16 bits; `vllm` needs a GPU (see docs/sampling.md)."""
    baselines: tuple[Baseline, ...] | None = None
    """What the aligned model is compared with besides SFT: the bare `base`, the base under `data.system`
    (`system_prompt`), the base shown examples (`few_shot`). By default, where functions or an endpoint judge, the base,
    and each of the others that the run file has a system prompt or examples for; else none (see docs/verdict.md)."""
    best_of: int = 0
    """Answers to each prompt of which the one with the highest reward counts, for two further contestants, best-of-n of
    SFT and of the aligned model: 4, for instance. Off by default (0)."""
    baseline_prompts: PositiveInt | None = None
    """Held-out prompts that the baselines answer, once each, evenly spaced among all. All of them by default."""
    checkpoints: NonNegativeInt = 0
    """Checkpoints of the aligned adapter that answer as well, evenly spaced along its training, to show where it is
    over-optimized: as many answers of each as of SFT, and with `judge: endpoint` two requests for each of them. The
    alignment has to keep one more by `keep_checkpoints`. Off by default (0)."""
    few_shot: tuple[Shot, ...] = ()
    """The examples of the baseline `few_shot`; by default those of `data.few_shot`."""

    @field_validator("best_of")
    @classmethod
    def _several(cls, n: int) -> int:
        return best_of.several(n)

    @model_validator(mode="after")
    def _of_answers_that_differ(self) -> Self:
        best_of.refuse_greedy(self.best_of, self.temperature)
        return self


def run(
    config: Config,
    context: Context,
    sft: Adapter,
    reference: Adapter,
    aligned: Adapter,
    reward: RewardModel | None = None,
    feedback: Feedback | None = None,
    **earlier: Feedback,
) -> Metrics:
    """Answer every held-out prompt with each adapter and each baseline; write answers, figures and the report.

    `reference` is what the round started from: in round 1, `sft` itself; in later ones the winner of the round before,
    which the aligned model is compared with as well. `reward` is what the method optimized; without it, its reward
    functions are. `feedback` has the judgements by which judges are made, and trusted, and `earlier` those of the
    rounds before. Raises Waiting where people judge, until they have answered.
    """
    from trueup.data import read_prompts
    from trueup.data.leaks import leaks
    from trueup.data.report import ReadReport, tell

    held_out = read_prompts(context.run.data, "held_out", context.run.seed, read := ReadReport())
    data_counts = tell(read, shared=leaks(context.run.data))

    # After the data: what is wrong with it is said at once.
    from trueup.chat.template import Chat
    from trueup.judges import abilities, asking, contest, headline, needs, optimized, writing
    from trueup.models import base
    from trueup.sampling.sample import refuse_beyond_context
    from trueup.sampling.types import Sampling
    from trueup.training import along

    needs.refuse(config, context.run_file_dir)
    abilities.refuse(config, context.run_file_dir)
    parts = optimized.functions(context) if reward is None else []  # `unused` leaves it out for no other method
    rows = [row for row in held_out for _ in range(config.num_completions)]
    prompts = [row["messages"] for row in rows]
    learned = reward is not None and config.judge not in OUTSIDE
    steps = along.chosen(aligned.path, config.checkpoints)
    later = reference.path != sft.path
    playing = _contestants(config, context.run, prompts, later=later, learned=learned, steps=tuple(steps))
    tokenizer = base.load_tokenizer(context.run.model)
    chat = Chat(tokenizer)
    asked = [chat.prompt(messages) for one in playing.values() for messages in one.prompts]
    refuse_beyond_context(tokenizer, asked, config.max_new_tokens)
    sampling = Sampling(**{name: getattr(config, name) for name in SAMPLED_BY}, seed=context.run.seed + 1)
    played = contest.Contest(
        run=context.run,
        contestants=playing,
        rows={label: one.rows for label, one in playing.items()},
        prompts=prompts,
        prompt_ids=[row["id"] for row in rows],
        sampling=sampling,
        sft=sft.path,
        reference=reference.path,
        aligned=aligned.path,
        reward=None if reward is None else reward.path,
        parts=parts,
        feedback=feedback,
        earlier=tuple(earlier.values()),
        abilities=partial(abilities.measure, config, context.run_file_dir),
        steps=steps,
    )
    found = contest.measured(played, context.out)
    played = replace(played, rows=found["rows"])  # what was sampled for another judge is not sampled again
    opinions = ranks.from_first(lambda: asking.opinions(config, context, played, found, reward))
    figures = headline.report(config.judge, context.run, found, opinions, played.prompt_ids)
    if ROUND_BEFORE in playing:
        figures["began_from"] = {"round": context.run.round - 1, "adapter": reference.path.name}
    if n := config.best_of:
        figures["best_of"] = {"n": n, "most_won": best_of.most_won(n), "most_kl_nats_per_answer": best_of.most_kl(n)}
    figures["abilities"] = abilities.figures(config, context.run_file_dir, found, prompts, played.prompt_ids)
    figures["data"] = data_counts
    writing.write(context, rows, found, opinions, figures)
    return figures


def _contestants(
    config: Config, run: RunFile, prompts: list[Messages], *, later: bool, learned: bool, steps: tuple[str, ...]
) -> dict[str, contestants.Contestant]:
    """Who answers `prompts`, by label; in a `later` round, the winner of the one before does, too.

    `learned`: whether the judge learned from answers of this run. `steps`: labels of checkpoints.
    """
    shots = config.few_shot or run.data.few_shot
    return contestants.all_of(
        prompts,
        later=later,
        chosen=baselines.default(run.data, shots, learned) if config.baselines is None else config.baselines,
        some=contestants.spread(
            len(prompts) // config.num_completions, config.num_completions, config.baseline_prompts
        ),
        best_of=config.best_of,
        data=run.data,
        shots=shots,
        steps=steps,
    )


def unused(config: Config, run: RunFile) -> tuple[str, ...]:
    """No reward model and no judgements, where the method was rewarded by functions alone."""
    return ("reward", "feedback") if by_functions(run) else ()


def how_far(run_dir: Path) -> str:
    """Of people who compare: how many are done, and how many more are likely."""
    from trueup.judges import people

    return people.how_far(run_dir / people.FOLDER)


def foresee(config: Config, context: Context) -> None:
    """Raises ConfigError where the judge, or what else is measured, lacks what it is made of.

    And StageError where the aligned adapter is there, and has too few checkpoints.
    """
    from trueup.judges import abilities, needs
    from trueup.training import along

    needs.refuse(config, context.run_file_dir)
    abilities.refuse(config, context.run_file_dir)
    run, number = context.run, config.checkpoints
    aligned = Adapter(context.run_dir / f"round-{run.round}" / naming.folder_of(run.method, run.variant))
    if aligned.is_there():
        along.chosen(aligned.path, number)
    elif isinstance(method := run.section(run.method), AlignmentSection):
        along.refuse_too_few_kept(run.method, method, number)
    for baseline in config.baselines or ():
        baselines.need(baseline, context.run.data.system, config.few_shot or context.run.data.few_shot)


def code(config: Config, folder: Path) -> dict[str, Path]:
    """The files of the functions that judge, and of what else is measured."""
    from trueup.judges import abilities

    judges = files_of_functions(RewardSettings(reward_functions=config.judge_functions), folder)
    return judges | abilities.files(config, folder)


def plan(values: loads.Values, lengths: Lengths, run: RunFile) -> loads.Planned:
    """What it holds in memory and computes."""
    chosen, n, later, steps = values["baselines"], values["best_of"], int(run.round > 1), values["checkpoints"]
    if chosen is None:
        learned = values["judge"] not in OUTSIDE
        chosen = baselines.default(run.data, values["few_shot"] or run.data.few_shot, learned)
    number, members = 2 + later + len(chosen) + 2 * n + steps, loads.adapters_of_reward(run)  # answers to each prompt
    prompts = lengths.num_held_out or loads.FALLBACK_ROWS
    load, once = loads.sampling(values, lengths, prompts, num_adapters=2 + members + later + steps)
    whole = once.read_tokens + once.sampled_tokens
    compared = (1 + later + steps) * 2 * whole  # KL
    read = number * (once.read_tokens + (1 + members) * whole) + compared  # prompts, judge, rewards
    return load, loads.Work(
        read_tokens=read, sampled_tokens=number * once.sampled_tokens, sampled_at_once=once.sampled_at_once
    )


STAGE = Stage(
    name="evaluate",
    config=Config,
    makes=Report,
    run=run,
    needs={"sft": "sft", "reference": "policy", "aligned": "aligned", "reward": "reward", "feedback": "collect"},
    unused=unused,
    all_rounds=("feedback",),
    code=code,
    foresee=foresee,
    how_far=how_far,
    reads=("held_out",),
    says=saying.says,
    help="Is it better, by how much.",
    batch="batch_size",
    fits_by=("batch_size",),
    late=LATE,
    plan=plan,
)
