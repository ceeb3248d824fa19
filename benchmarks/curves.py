"""Training losses of ours and of the peer, step by step, as one picture, from what the benchmarks printed.

python benchmarks/sft.py --rows 161 --max-length 128 --in-order | tail -1 > sft.json
python benchmarks/dpo.py --pairs 128 --max-length 128 --in-order | tail -1 > dpo.json
python benchmarks/curves.py sft.json dpo.json --out docs/losses.png
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="files whose last line is a benchmark's JSON object")
    parser.add_argument("--out", type=Path, required=True, help="the picture, .png or .svg")
    asked = parser.parse_args()
    _, axes = plt.subplots(1, len(asked.results), figsize=(4 * len(asked.results), 3), squeeze=False)
    for ax, path in zip(axes[0], asked.results, strict=True):
        found = json.loads(path.read_text().splitlines()[-1])
        steps = range(1, len(found["losses"]) + 1)
        ax.plot(steps, found["peer_losses"], "o-", color="#999999", markersize=7, label="plain TRL")
        ax.plot(steps, found["losses"], ".-", color="#1f77b4", label="trueup")
        ax.set(title=found["name"], xlabel="optimizer step", ylabel="training loss (nats)")
        ax.legend()
    plt.tight_layout()
    plt.savefig(asked.out, dpi=100)


if __name__ == "__main__":
    main()
