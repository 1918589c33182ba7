"""Explain networks that were trained on real data: what and where, the worth of skips, how far they see.

    python bench/real_data.py                                       # trains, if that was not done yet
    python bench/explain_real.py --runs bench/out/real              # a few minutes each; goes on where it stopped
    python bench/explain_real.py --runs bench/out/real --without bench/out/real-without

``--runs`` holds a run folder a data set, ``--without`` the same trained with ``--skips none``: only together do they
tell what a skip is worth to a network that could have learnt to do without. Everything is kept in OUT/NAME/;
`docs/make_measured_pages.py` makes the page.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from common import header
from explained import explained
from whatwhere.chosen import truth_of
from whatwhere.judge import compare
from whatwhere.network import load_model
from whatwhere.verbs import evaluate
from whatwhere.writing import write_json

SETS = ("cats", "isbi_membrane", "camvid")


def explain_run(run: Path, data: Path, folder: Path, images: int) -> dict[str, Any]:
    """The measurements of one trained network on the validation images."""
    model = load_model(run)
    return explained(model, truth_of(model, data, "val"), folder, images)


def differ(run: Path, without: Path, data: Path, folder: Path) -> None:
    """Trained with skips against trained without, on the validation images."""
    if not (folder / "difference.json").is_file():
        scores = [evaluate(one, data, split="val", tolerance=1.0) for one in (run, without)]
        difference = compare(scores[0], scores[1], names=("with skips", "without"))
        print(difference, flush=True)
        write_json(folder / "difference.json", difference.to_json())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--runs", type=Path, default=Path("bench/out/real"), help="a run folder a data set")
    parser.add_argument("--without", type=Path, help="the same, trained with --skips none")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("bench/out/explain_real"))
    parser.add_argument("--images", type=int, default=20)
    args = parser.parse_args()
    if not args.data.is_dir():
        sys.exit(f"skipped: there is no {args.data}; give the folder of the data sets with --data")
    print(header("scikit-learn"))
    for name in args.sets:
        run = args.runs / name
        if not (run / "run.json").is_file():
            print(f"\n{name}: left out, as {run} holds no finished run; python bench/real_data.py {name} makes one")
            continue
        print(f"\n{name}", flush=True)
        found = explain_run(run, args.data / name, args.out / name, args.images)
        for question, said in found["answers"].items():
            print("\n".join([f"  {question}", *(f"    {sentence}" for sentence in said)]), flush=True)
        if args.without and (args.without / name / "run.json").is_file():
            differ(run, args.without / name, args.data / name, args.out / name)


if __name__ == "__main__":
    main()
