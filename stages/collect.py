"""collect: (Completions | preferences) -> Feedback. What people said in Label Studio, or before, frozen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from trueup.errors import ConfigError, DataError, FeedbackError, TrueupError
from trueup.run.artifacts import Completions, Feedback, read_jsonl
from trueup.run.run_file import RunFile
from trueup.run.section import Section
from trueup.run.stage import Context, Metrics, Stage

if TYPE_CHECKING:
    from trueup.feedback.examples import Dataset
    from trueup.feedback.gold import Gold
    from trueup.feedback.sources import Pulled, Source


OF_QUESTIONS = (  # settings of what people are asked
    "guidelines",
    "annotations_per_completion",
    "overlap",
    "gold",
    "qualification",
    "repeated_share",
    "adjudicate",
)


class Overlap(Section):
    """A part of the prompts whose questions more people judge, so that it is known how far people agree."""

    share: float = Field(gt=0, le=1)
    """The share of the prompts whose questions more people judge, from 0 to 1."""
    people: int = Field(gt=1)
    """How many people judge each question of these prompts."""


class Qualification(Section):
    """What a person has to know before this person's judgements count."""

    gold: PositiveInt
    """The number of gold questions that a person has to judge first."""
    accuracy: float = Field(gt=0, le=1)
    """The share of the gold questions that a person has to get right, from 0 to 1."""


class Config(Section):
    """What people are asked, and how much is labelled before the snapshot is frozen."""

    interface: Literal["thumbs", "pairwise", "rating", "edit", "use"] = "thumbs"
    """What people give: `thumbs`, each answer good or bad; `pairwise`, the better one of two answers to a prompt;
    `rating`, each answer from 1 to 5; `edit`, each answer as it should be. Thumbs take a better answer, too. With `use`
    nobody is asked: what people said in `trueup chat` and to `trueup serve`, which counts beside the others as well, is
    all there is."""
    guidelines: str | None = None
    """What people should go by, shown on the screen: a text, or the path of a text file beside the run file. Their
    version is kept with every judgement. None by default."""
    annotations_per_completion: PositiveInt = 1
    """People who judge each completion, or each pair of completions."""
    overlap: Overlap | None = None
    """A share of the prompts whose questions more people judge, such as `{share: 0.2, people: 3}`, so that it is known
    how far people agree. None by default."""
    gold: str | None = None
    """A file of judged answers, beside the run file, whose questions come among the others and look like them: the
    record says how often each person is right about them, and nothing is trained on them. None by default."""
    qualification: Qualification | None = None
    """When a person's judgements count, such as `{gold: 10, accuracy: 0.8}`: once this person has judged ten gold
    questions, and 80 % of them rightly; what was judged before counts then as well. By default all judgements count."""
    repeated_share: float = Field(default=0.0, ge=0, le=1)
    """The share of the questions that come once more, further back, to see whether people say the same again; what they
    say the second time is no further vote."""
    adjudicate: bool = False
    """Have what people dispute judged once more, in a project of its own, whose address you give to somebody you trust
    to decide; the verdicts there win."""
    min_labelled_fraction: float = Field(default=1.0, ge=0, le=1)
    """The share of the completions, or of the pairs, that have to be judged before the judgements are frozen."""
    held_out_fraction: float = Field(default=0.15, ge=0, lt=1)
    """The share of the prompts whose judgements nothing is trained on, and that measure the reward model."""

    @model_validator(mode="after")
    def _overlaps(self) -> Self:
        if self.overlap is not None and self.overlap.people <= self.annotations_per_completion:
            raise ValueError(
                f"overlap.people is {self.overlap.people}, expected more than annotations_per_completion "
                f"({self.annotations_per_completion})"
            )
        return self


def run(config: Config, context: Context, completions: Completions | None = None) -> Metrics:
    """Publish what is missing, pull every judgement into the store, freeze pairs and rows. Raises Waiting until then.

    Without `completions` the preferences of `data.preferences` are frozen: there is nothing to ask anybody.
    """
    from trueup.feedback import freezing, qualification, sources
    from trueup.feedback.asking import asking
    from trueup.feedback.project import Project, open_project
    from trueup.feedback.questions import questions
    from trueup.feedback.screens import version

    if completions is None:
        foresee(config, context)
        return _ready_made(config, context) if context.run.data.preferences else _of_use(config, context)
    foresee(config, context)
    gold, guidelines, rows = _gold(config, context), _guidelines(config, context), completions.rows()
    seed, settings, store = context.run.seed, context.run.labelstudio, context.run_dir / "store"
    found = questions(rows, config.interface, seed)
    if not found.tasks:
        raise FeedbackError(
            "collect",
            found="no prompt with two different answers",
            expected="pairs of answers for people to compare",
            next_step="sample more of them (sample.num_completions), or set collect.interface: rating",
        )
    project, needed = open_project(settings, store, config.interface), config.qualification
    asked = asking(
        found,
        config.annotations_per_completion,
        seed,
        overlap=(config.overlap.share, config.overlap.people) if config.overlap else None,
        repeated_share=config.repeated_share,
        gold=gold,
        gold_among=2 * needed.gold if needed else None,
        before=project.store.asked(),
    )
    source = sources.LabelStudio(
        project,
        f"trueup {context.run.name}",
        rows,
        asked,
        each=config.annotations_per_completion,
        fraction=config.min_labelled_fraction,
        guidelines=guidelines,
        qualification=qualification.Qualification(gold.right, needed.gold, needed.accuracy) if needed else None,
        adjudication=Project(settings, store, config.interface, adjudicates=True),
        adjudicates=config.adjudicate,
    )
    next_step = "change or add some in Label Studio, then run the same command again"
    number, pulled, dataset = _frozen(config, context, source, next_step)
    agreed = {str(person.id): person.name for person in source.project.people() if person.named}
    judged = {one.annotator for one in pulled.judgements}
    return {
        "names_of_annotators": {who: name for who, name in agreed.items() if who in judged},  # of those who agreed
        "num_published": number,
        "interface": config.interface,
        "guidelines": version(guidelines),  # on the screen now; the judgements may be of earlier ones
        "completions_not_asked_about": found.not_asked,
        "asked": {
            "questions": len(asked.people),
            "of_several_people": sum(n > config.annotations_per_completion for n in asked.people.values()),
            "gold": len(asked.right),
            "repeated": len(asked.repeated),
        },
        **freezing.of_people(context, pulled, dataset, set(asked.people)),
    }


def foresee(config: Config, context: Context) -> None:
    """Raises, all at once, what is wrong with the settings and the files that tell what people are asked."""
    checks = (_refuse_questions,) if _nobody_is_asked(config, context) else (_refuse_method, _gold, _guidelines)
    faults: list[TrueupError] = []
    for check in checks:
        try:
            check(config, context)
        except TrueupError as error:
            faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise ConfigError(
            "collect",
            found=f"{len(faults)} faults\n  " + "\n  ".join(str(error).replace("\n", "\n  ") for error in faults),
            next_step="correct all of them, then run the same command again",
        )


def _nobody_is_asked(config: Config, context: Context) -> bool:
    return config.interface == "use" or bool(context.run.data.preferences)


def _refuse_questions(config: Config, context: Context) -> None:
    """Raises ConfigError where settings say what people are asked, and nobody is asked anything."""
    names = [name for name in OF_QUESTIONS if getattr(config, name) != Config.model_fields[name].default]
    if names:
        of_files = bool(context.run.data.preferences)
        raise ConfigError(
            ", ".join(f"collect.{name}" for name in names),
            found="judgements of data.preferences" if of_files else "collect.interface: use",
            expected="judgements in Label Studio: nobody is asked here",
            next_step="leave it out" if len(names) == 1 else "leave them out",
        )


def _refuse_method(config: Config, context: Context) -> None:
    """Raises ConfigError where the method could learn nothing from what people are asked."""
    if context.run.method == "kto" and config.interface in ("pairwise", "edit"):
        raise ConfigError(
            "collect.interface",
            found=f"{config.interface}, and method kto, which learns from single judgements",
            expected="thumbs or rating",
            next_step="set collect.interface: thumbs, or method: dpo",
        )


def _guidelines(config: Config, context: Context) -> str:
    from trueup.feedback.screens import read_guidelines

    return read_guidelines(config.guidelines, context.run_file_dir)


def _gold(config: Config, context: Context) -> Gold:
    """The gold questions. Raises ConfigError and DataError where these do not fit what people are asked."""
    from trueup.feedback.gold import Gold

    gold, needed = read_gold(config, context) if config.gold else Gold([], {}), config.qualification
    if needed is not None and len(gold.right) < needed.gold:
        raise ConfigError(
            "collect.qualification",
            found=f"{len(gold.right)} gold questions",
            expected=f"{needed.gold} or more in the file of collect.gold",
            next_step="add some to it, or set collect.qualification.gold to less",
        )
    return gold


def read_gold(config: Config, context: Context) -> Gold:
    """The questions of the file `collect.gold`. Raises ConfigError and DataError where they are not usable."""
    from trueup.data import read_preferences
    from trueup.feedback import gold
    from trueup.run.data_config import Source

    path, seed = context.run_file_dir / Path(config.gold or "").expanduser(), context.run.seed
    if config.interface not in gold.WANTED:
        raise ConfigError(
            "collect.gold",
            found=f"collect.interface: {config.interface}, to which there is no right answer",
            expected=f"one of {', '.join(gold.WANTED)}",
            next_step="leave out collect.gold, or set another collect.interface",
        )
    try:
        rows, unusable = read_preferences(
            context.run.data.model_copy(update={"preferences": (Source(path=path),)}), seed
        )
    except DataError as error:
        where = "collect.gold" if error.where == "data.preferences" else f"collect.gold: {error.where}"
        next_step = f"correct the rows of {path}" if path.exists() else "correct the path"
        raise DataError(where, found=error.found, expected=error.expected, next_step=next_step) from None
    return gold.gold_of(rows, unusable, path, config.interface, seed)


def _frozen(config: Config, context: Context, source: Source, next_step: str) -> tuple[int, Pulled, Dataset]:
    from trueup.data.leaks import of_held_out
    from trueup.feedback import freezing

    return freezing.frozen(context, source, config.held_out_fraction, of_held_out(context.run.data), next_step)


def _ready_made(config: Config, context: Context) -> Metrics:
    """Pairs and thumbs the user already has become the same snapshot as judgements from Label Studio."""
    from trueup.data import read_preferences
    from trueup.data.report import ReadReport, tell
    from trueup.feedback import freezing, quality, sources

    judged, unusable = read_preferences(context.run.data, context.run.seed, report := ReadReport())
    notes = {"num_judged": len(judged), "unusable_rows": unusable, "data": tell(report)}
    next_step = "look at the label column: trueup data check RUN.yaml; or add thumbs of the other kind"
    _, pulled, dataset = _frozen(config, context, sources.Files(judged, notes), next_step)
    return {
        "num_prompts": dataset.num_prompts,
        "counts": dataset.counts,
        "became": dataset.became,
        "not_trained_on": dataset.not_trained_on,
        "num_annotators": len({one.annotator for one in pulled.judgements if one.is_named}),
        **pulled.notes,
        "better_answers": freezing.better_answers(context, dataset),
        **quality.figures(pulled.judgements, pulled.completions),
    }


def _of_use(config: Config, context: Context) -> Metrics:
    """What people said in use, where nobody is asked for more. Raises FeedbackError where nobody said anything."""
    from trueup.feedback import freezing, sources, use

    if not use.Use(context.run_dir / "store").num_judgements():
        raise FeedbackError(
            "collect.interface: use",
            found="nobody has said anything of an answer yet",
            expected="judgements given in use",
            next_step="trueup chat RUN.yaml, or trueup serve RUN.yaml",
        )
    next_step = "say what you think of more answers (trueup chat RUN.yaml), then run the same command again"
    _, pulled, dataset = _frozen(config, context, sources.Files([], {}), next_step)
    return {
        "num_prompts": dataset.num_prompts,
        "counts": dataset.counts,
        "became": dataset.became,
        **pulled.notes,
        "better_answers": freezing.better_answers(context, dataset),
    }


def unused(config: Config, run: RunFile) -> tuple[str, ...]:
    """No completions, where nobody is asked about any."""
    return ("completions",) if config.interface == "use" else ()


def since(config: Config, context: Context, made: Feedback, completions: Completions | None = None) -> str:
    """What people said or changed since the snapshot `made`, in sentences; empty when nothing."""
    from trueup.feedback import use

    new = use.since(use.Use(context.run_dir / "store"), made.record().get("metrics", {}))
    return "; ".join(filter(None, [new, _since_in_label_studio(config, context, made, completions)]))


def _since_in_label_studio(config: Config, context: Context, made: Feedback, completions: Completions | None) -> str:
    from trueup.feedback import freezing, server
    from trueup.feedback.project import Project
    from trueup.feedback.questions import questions

    settings = context.run.labelstudio
    if completions is None:
        return ""
    if settings.url is None and not server.is_running(settings.data_dir):
        return "Label Studio is not running, and so was not asked for newer verdicts"
    try:
        asked = questions(completions.rows(), config.interface, context.run.seed).uids
        frozen = [row for name in ("annotations.jsonl", freezing.CHECKS) for row in _lines(made.path / name)]
        store = context.run_dir / "store"
        if settings.url is not None and Project(settings, store, config.interface).known is None:
            if any(row.get("annotation_id") is not None for row in frozen):
                return f"{settings.url} was not asked for newer verdicts: nothing was published at this address"
            return ""
        changes = ", of disputes ".join(
            found
            for adjudicates in (False, True)
            if (found := Project(settings, store, config.interface, adjudicates=adjudicates).changes(asked, frozen))
        )
    except TrueupError as error:
        return f"Label Studio could not be asked for newer verdicts: {error.found}"
    return f"Label Studio holds newer verdicts ({changes}); to take them: --refresh" if changes else ""


def _lines(path: Path) -> list[Metrics]:
    return list(read_jsonl(path)) if path.exists() else []


def says(metrics: Metrics, run: RunFile) -> list[str]:
    """How people judged, the pairs that gives, and the prompts that give none."""
    from trueup.feedback import saying

    return saying.says(metrics, run)


def how_far(run_dir: Path) -> str:
    """Of people who are not done: how many completions are judged."""
    from trueup.feedback import saying

    return saying.how_far(run_dir)


STAGE = Stage(
    alone=True,
    name="collect",
    flags=("adjudicate",),
    refreshed_by=("adjudicate",),
    shorthands={"watch": ("labelstudio.wait=true", "Stay until people are done, and show how far they are.")},
    apart=("adjudicate",),
    config=Config,
    makes=Feedback,
    run=run,
    needs={"completions": "sample"},
    unused=unused,
    unless="preferences",
    on_base=False,
    how_far=how_far,
    says=says,
    since=since,
    foresee=foresee,
    help="People judge in Label Studio; freeze what they said.",
)
