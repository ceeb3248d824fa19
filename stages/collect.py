"""collect: (Completions | preferences) -> Feedback. What people said in Label Studio, or before, frozen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from trueup.run.artifacts import Completions, Feedback
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
    foresee(config, context)
    if completions is not None:
        return _of_people(config, context, completions.rows())
    return _of_files(config, context) if context.run.data.preferences else _of_use(config, context)


def foresee(config: Config, context: Context) -> None:
    """Raises, all at once, what is wrong with the settings and the files that tell what people are asked."""
    from trueup.feedback import refusals

    of_files = bool(context.run.data.preferences)
    if of_files or config.interface == "use":
        names = [name for name in OF_QUESTIONS if getattr(config, name) != Config.model_fields[name].default]
        return refusals.questions_to_nobody(names, of_files=of_files)
    return refusals.all_at_once(
        (
            lambda: refusals.nothing_to_learn(context.run.method, config.interface),
            lambda: _gold(config, context),
            lambda: _guidelines(config, context),
        )
    )


def _of_people(config: Config, context: Context, rows: list[dict[str, Any]]) -> Metrics:
    """People judge the completions `rows` in Label Studio."""
    from trueup.feedback import freezing, qualification, refusals, sources
    from trueup.feedback.asking import asking
    from trueup.feedback.project import Project, open_project
    from trueup.feedback.questions import questions
    from trueup.feedback.screens import version

    gold, guidelines, needed = _gold(config, context), _guidelines(config, context), config.qualification
    seed, settings, store = context.run.seed, context.run.labelstudio, context.run_dir / "store"
    found = questions(rows, config.interface, seed)
    refusals.nothing_to_ask(found.tasks)
    project = open_project(settings, store, config.interface)
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
        "asked": asked.counts(config.annotations_per_completion),
        **freezing.of_people(context, pulled, dataset, set(asked.people)),
    }


def _of_files(config: Config, context: Context) -> Metrics:
    """Pairs and thumbs the user already has become the same snapshot as judgements from Label Studio."""
    from trueup.data import read_preferences
    from trueup.data.report import ReadReport, tell
    from trueup.feedback import freezing, sources

    judged, unusable = read_preferences(context.run.data, context.run.seed, report := ReadReport())
    notes = {"num_judged": len(judged), "unusable_rows": unusable, "data": tell(report)}
    next_step = "look at the label column: trueup data check RUN.yaml; or add thumbs of the other kind"
    _, pulled, dataset = _frozen(config, context, sources.Files(judged, notes), next_step)
    return freezing.of_files(context, pulled, dataset)


def _of_use(config: Config, context: Context) -> Metrics:
    """What people said in use, where nobody is asked for more. Raises FeedbackError where nobody said anything."""
    from trueup.feedback import freezing, refusals, sources

    refusals.nothing_said(context.run_dir / "store")
    next_step = "say what you think of more answers (trueup chat RUN.yaml), then run the same command again"
    _, pulled, dataset = _frozen(config, context, sources.Files([], {}), next_step)
    return freezing.of_use(context, pulled, dataset)


def _frozen(config: Config, context: Context, source: Source, next_step: str) -> tuple[int, Pulled, Dataset]:
    from trueup.data.leaks import of_held_out
    from trueup.feedback import freezing

    return freezing.frozen(context, source, config.held_out_fraction, of_held_out(context.run.data), next_step)


def _guidelines(config: Config, context: Context) -> str:
    from trueup.feedback.screens import read_guidelines

    return read_guidelines(config.guidelines, context.run_file_dir)


def _gold(config: Config, context: Context) -> Gold:
    """The gold questions. Raises ConfigError and DataError where these do not fit what people are asked."""
    from trueup.feedback import refusals
    from trueup.feedback.gold import Gold

    gold = read_gold(config, context) if config.gold else Gold([], {})
    if config.qualification is not None:
        refusals.too_little_gold(len(gold.right), config.qualification.gold)
    return gold


def read_gold(config: Config, context: Context) -> Gold:
    """The questions of the file `collect.gold`. Raises ConfigError and DataError where they are not usable."""
    from trueup.data.one_file import read_judged
    from trueup.feedback import gold

    gold.refuse(config.interface)
    path, seed = context.run_file_dir / Path(config.gold or "").expanduser(), context.run.seed
    rows, unusable = read_judged(path, "collect.gold", context.run.data, seed)
    return gold.gold_of(rows, unusable, path, config.interface, seed)


def unused(config: Config, run: RunFile) -> tuple[str, ...]:
    """No completions, where nobody is asked about any."""
    return ("completions",) if config.interface == "use" else ()


def since(config: Config, context: Context, made: Feedback, completions: Completions | None = None) -> str:
    """What people said or changed since the snapshot `made`, in sentences; empty when nothing."""
    from trueup.feedback import newer

    return newer.since(config.interface, context, made, completions)


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
