"""What real people said, all the way into training. Needs the human data beside the project.

    python benchmarks/real_labels.py pairs OUT     PandaLM: three people's verdicts -> margins -> a reward model
    python benchmarks/real_labels.py helpful OUT   hh-rlhf, helpful: one verdict on each pair -> a reward model
    python benchmarks/real_labels.py thumbs OUT    OpenAssistant: thumbs -> Label Studio and back -> KTO

`thumbs` publishes the first answers of the file whose thumbs few people gave to a real Label Studio server, has an
account for each of these people vote as the file says, pulls, compares, and trains. Both start from a short SFT on
databricks-dolly. Run the same command again after an interruption: finished stages stay.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import common
from click.testing import CliRunner

Row = dict[str, Any]
FILES = {"pairs": "pandalm_testset_v1.jsonl.gz", "helpful": "hh_helpful_base.train.jsonl.gz"}
MOST_PEOPLE = 3  # who gave thumbs on one answer: each is an account of its own
RUN = """name: {name}
method: {method}
model: {{base: "{base}"}}
data:
  demonstrations: demonstrations.jsonl
  preferences: {preferences}
sft: {{num_train_epochs: 1, per_device_train_batch_size: 4, max_length: 256}}
collect: {{held_out_fraction: {held_out}}}
reward: {{kind: {kind}, num_train_epochs: {epochs}, max_length: {length}, save_steps: 5}}
kto: {{num_train_epochs: {epochs}, max_length: {length}, save_steps: 5}}
"""


def write(path: Path, rows: list[Row]) -> None:
    """The rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def run(folder: Path, *stages: str) -> Row:
    """Build the stages of the run in `folder`; returns the metrics of the last one."""
    from trueup.cli.main import main

    for stage in stages:
        done = CliRunner().invoke(main, [stage, str(folder / "run.yaml")])
        print(done.output, file=sys.stderr)
        if done.exit_code:
            sys.exit(done.exit_code)
    made = next((folder / "runs").glob(f"*/**/{stages[-1]}/record.json"))
    metrics: Row = json.loads(made.read_text())["metrics"]
    return metrics


def demonstrations(folder: Path, count: int) -> None:
    write(folder / "demonstrations.jsonl", common.rows_of("sft_dolly_open_qa.jsonl.gz", count))


def pairs(out: Path, asked: argparse.Namespace) -> Row:
    """The reward model's accuracy on held-out prompts, beside that of "the longer answer is better"."""
    from trueup.evaluation import intervals
    from trueup.run.artifacts import Feedback

    demonstrations(out, asked.demonstrations)
    write(out / "judged.jsonl", common.rows_of(FILES[asked.part], asked.rows))
    settings = {
        "held_out": asked.held_out,
        "epochs": asked.epochs,
        "length": asked.max_length,
        "base": asked.base,
        "kind": asked.kind,
    }
    (out / "run.yaml").write_text(RUN.format(name=asked.part, method="dpo", preferences="judged.jsonl", **settings))
    metrics = run(out, "sft", "collect", "reward")
    frozen = Feedback(out / "runs" / asked.part / "round-1" / "collect")
    apart = frozen.pairs("held_out")
    longer = [(len(p["chosen"]) > len(p["rejected"])) + 0.5 * (len(p["chosen"]) == len(p["rejected"])) for p in apart]
    found = frozen.record()["metrics"]
    return {
        "became": found["became"],
        "alpha": found.get("alpha"),  # of people who judged the same
        "kappa": found["kappa"]["pairs"] if found.get("kappa") else None,
        "margins": dict(Counter(round(p["margin"], 2) for p in [*frozen.pairs("train"), *apart])),
        "held_out_prompts": len({p["prompt_id"] for p in apart}),
        **{name: metrics.get(name) for name in ("num_pairs", "num_dropped_too_long", "num_held_out", "train_loss")},
        "held_out_left_out": metrics["num_held_out_left_out"],
        "right": metrics["held_out_accuracy_by_prompt"],
        "longer_is_right": intervals.win_rate(longer, [p["prompt_id"] for p in apart]),
    }


def thumbs(out: Path, asked: argparse.Namespace) -> Row:
    """Votes that went to Label Studio and back, compared with the file; and what KTO did with them."""
    rows = [r for r in common.rows_of("oasst_thumbs.jsonl.gz", 455) if 0 < r["up"] + r["down"] <= MOST_PEOPLE]
    write(out / "oasst.jsonl", rows[: asked.rows])
    pulled = out / "pulled.jsonl"
    report = (
        json.loads((out / "through.json").read_text())
        if pulled.is_file()
        else _through_label_studio(out, pulled, asked.port)
    )
    demonstrations(out, asked.demonstrations)
    settings = {
        "held_out": 0.15,
        "epochs": asked.epochs,
        "length": asked.max_length,
        "base": asked.base,
        "kind": asked.kind,
    }
    (out / "run.yaml").write_text(RUN.format(name="oasst", method="kto", preferences="pulled.jsonl", **settings))
    metrics = run(out, "sft", "collect", "kto")
    frozen = json.loads((out / "runs" / "oasst" / "round-1" / "collect" / "record.json").read_text())["metrics"]
    names = ("num_rows", "num_desirable", "desirable_weight", "undesirable_weight", "num_steps", "train_loss")
    return report | {
        "became": frozen["became"],
        "share_of_people": {who: one["num_judgements"] for who, one in frozen["people"].items()},
        **{name: metrics[name] for name in names},
        "first_loss": metrics["reference_proof"]["first_loss"],
    }


def _through_label_studio(out: Path, pulled: Path, port: int) -> Row:
    from trueup.data import read_preferences
    from trueup.demo.simulate import sign_up
    from trueup.feedback import exporting, server
    from trueup.feedback.api import Api
    from trueup.feedback.connection import connect
    from trueup.feedback.files import judgements_of
    from trueup.feedback.project import open_project
    from trueup.feedback.questions import questions
    from trueup.feedback.sources import LabelStudio
    from trueup.run.data_config import DataConfig
    from trueup.run.run_file import LabelStudioConfig

    judged, left_out = read_preferences(DataConfig.model_validate({"preferences": out / "oasst.jsonl"}))
    said, completions = judgements_of(judged)
    settings = LabelStudioConfig(data_dir=out / "labelstudio", port=port or _free_port())
    wanted: dict[str, list[bool]] = {}
    for one in said:
        wanted.setdefault(one.uid, []).append(bool(one.verdict))
    try:
        project = open_project(settings, out / "store")
        asked = questions(completions, "thumbs", 0)
        source = LabelStudio(project, "oasst thumbs", completions, asked, each=1, fraction=1.0)
        published, again = source.publish(), source.publish()
        accounts = [sign_up(connect(settings.data_dir), f"person-{n}") for n in range(1, MOST_PEOPLE + 1)]
        people = [Api(account) for account in accounts]
        for task in project.client.pull(project.make("oasst thumbs", 1)[0]):
            for person, up in zip(people, wanted[task["data"]["uid"]], strict=False):
                choice = {"choices": ["up" if up else "down"]}
                result = [{"from_name": "thumb", "to_name": "response", "type": "choices", "value": choice}]
                number = int(task["id"])
                person.send(
                    "voting", lambda sdk, i=number, r=result: sdk.annotations.create(id=i, result=r, lead_time=3.0)
                )
        found = source.pull()
    finally:
        server.stop(settings.data_dir)
    came = Counter((one.uid, one.verdict) for one in found.judgements)
    equal = came == Counter((one.uid, bool(one.verdict)) for one in said)
    write(pulled, exporting.judgements(found.lines, completions, {}))
    report = {
        "answers": len(completions),
        "without_a_majority_and_so_left_out": left_out,
        "thumbs_in_the_file": len(said),
        "published": published,
        "published_again": again,
        "pulled": len(found.judgements),
        "pulled_equals_the_file": equal,
    }
    (out / "through.json").write_text(json.dumps(report))
    return report


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("part", choices=("pairs", "helpful", "thumbs"))
    made.add_argument("out", type=Path)
    made.add_argument("--rows", type=int, default=600, help="of the file of judgements")
    made.add_argument("--demonstrations", type=int, default=24)
    made.add_argument("--held-out", type=float, default=0.3, help="share of the prompts that is held out of pairs")
    made.add_argument("--epochs", type=float, default=1)
    made.add_argument("--max-length", type=int, default=192, help="tokens; longer pairs are left out, and counted")
    made.add_argument("--kind", choices=("lora", "head"), default="lora", help="of the reward model")
    made.add_argument("--base", default=common.BASE)
    made.add_argument("--port", type=int, default=0, help="of Label Studio; by default one that is free")
    asked = made.parse_args()
    asked.out = asked.out.resolve()
    asked.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    found = thumbs(asked.out, asked) if asked.part == "thumbs" else pairs(asked.out, asked)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
