"""Write `unet-intuition-measured.md` and `real-data-measured.md` from the files that the benchmarks left.

    python bench/explain_scenes.py && python bench/explain_real.py
    python docs/make_measured_pages.py

No number on the pages is typed: each is read from a measurements.json or scores.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from measured_files import (
    Record,
    bottleneck_alone,
    differences,
    draw_what_and_where,
    few,
    mean,
    of,
    output,
    over,
    picture,
    pixels,
    ranged,
    read,
    readings,
    step,
    surely,
    table,
    title,
)

from whatwhere.demo import NETWORKS
from whatwhere.judge.bootstrap import ENOUGH

HERE = Path(__file__).parent
SCORES = ("interior accuracy", "boundary accuracy", "mean IoU", "Boundary F1")
COMPARED = ("mean_iou", "mean_dice", "mean_boundary_f1")
NEWLINE = "\n"

Seeds = Mapping[str, Sequence[Record]]
"""For each of the three networks its measurements, one a seed."""
Show = Callable[[str, str], str]
"""Puts a picture of the benchmark beside the page, and returns the line that shows it."""


def scenes_page(folder: Path, pictures: Path) -> str:
    """The page of the three-seed benchmark."""
    places = sorted(one.parent for one in folder.glob("seed-*/scores.json"))
    scores = [read(place / "scores.json") for place in places]
    seeds = {name: [read(place / name / "measurements.json") for place in places] for name in NETWORKS}
    show = partial(_shown, places[0], pictures)
    draw_what_and_where(seeds["unet"], pictures / "levels.png")
    return f"""# U-Net intuition, measured

*Made by `docs/make_measured_pages.py` from the files of `bench/explain_scenes.py`: every number below was read from
them, none was typed.*

Cats and cushions are drawn scenes of 128x128 px. The same fur covers both, so a patch of fur tells nothing: only heads,
tails and tassels do, and those are some way off. Tails, whiskers and threads are one to three pixels wide. Three
networks learn to paint them, over {len(places)} seeds, each with scenes and trainings of its own
({scores[0]["epochs"]:g} epochs; the shallow network half as many). All is measured on scenes that no training and no
validation has seen. A value is the mean over seeds, with the lowest and the highest in parentheses.

{_three_networks(scores)}
{_context(seeds, show, pictures)}
{_sight(seeds["unet"], show)}
{_skips(seeds, scores, show)}
{_pixel(seeds["unet"])}
{_presence(seeds["unet"])}
## How it was measured

`whatwhere explain` on {len(seeds["unet"][0]["images"])} scenes a seed and network; its page tells what every probe,
control and interval is, and measurements.json holds every value with its number of images and pixels, interval, method
and seed. {_versions(seeds["unet"][0])}.

    python bench/explain_scenes.py
    python docs/make_measured_pages.py

The same for photographs and micrographs: [real-data-measured.md](real-data-measured.md).
"""


def _shown(place: Path, pictures: Path, source: str, words: str) -> str:
    return picture(place / f"{source}.png", pictures / f"{source.replace('/', '-')}.png", words)


def _three_networks(scores: Sequence[Record]) -> str:
    keys = list(scores[0]["scores"]["unet"])
    rows = [
        [f"**{net.title}**: {net.lesson}", *(over(one["scores"][name][key] for one in scores) for key in keys)]
        for name, net in NETWORKS.items()
    ]
    claims = []
    for claim in scores[0]["shown"]:
        held = [one["shown"][claim] for one in scores]
        claims.append(f"- {claim}: **{'yes' if all(held) else 'no'}** ({sum(held)} of {len(held)} seeds)")
    return f"""## Three networks

{table(["network", *keys], rows)}

On {scores[0]["scenes"]} scenes a seed. *Cat or cushion inside*: balanced accuracy between the two, more than 5 px from
an edge; 0.5 is chance. *Thin recall*: share of the pixels of tails, whiskers, cords and threads that get their class.

What was to be shown, and whether it was:

{NEWLINE.join(claims)}
"""


def _context(seeds: Seeds, show: Show, pictures: Path) -> str:
    layers = [readings(one) for one in seeds["unet"]]
    top, bottom, last = ([one[name] for one in layers] for name in ("encoder.0", "bottleneck", "decoder.0"))
    answers = [one["levels"] for one in seeds["unet"]]
    shallow = over(one["levels"]["answer_what"]["value"] for one in seeds["shallow"])
    return f"""## What is context, and what is a low-level feature?

![What and where along the U]({pictures.name}/levels.png)

**A low-level feature is what a unit can say from a few pixels.** On encoder 0 a linear probe tells the two sides of an
edge apart with a balanced accuracy of {mean(top, "where")}, but inside objects it tells the classes with one of
{mean(top, "what")} (chance {answers[0]["chance"]:.2f}).

**Context is what takes a wide view.** Down the encoder *what* {step(of(top, "what"), of(bottom, "what"))}; *where*
{step(of(top, "where"), of(bottom, "where"))}. The shallow network, whose output sees
{pixels(output(one)["theoretical"] for one in seeds["shallow"])} px, ends at a *what* of {shallow}.

**At the end of the decoder** *what* is {mean(last, "what")} and *where* {mean(last, "where")}:
{_both(top, bottom, last)}.

{show("unet/painted-0", "A scene as a probe on each level of the U-Net paints it")}

*A scene as a probe on each level paints it, fitted on other scenes: the encoder above, the decoder below. Then the
network without skips, and the shallow one, each on a telling scene.*

{show("no-skips/painted-0", "A scene as each level of the network without skips paints it")}

{show("shallow/painted-0", "A scene as each level of the shallow network paints it")}

{_levels_table(layers, answers)}

Deeper is wider, and an untrained network looks at neighbourhoods too: the last two columns say how much of *what* comes
from that. *Which side* asks at edges in images never seen, and so takes some *what*.
"""


def _both(top: Sequence[Record], bottom: Sequence[Record], last: Sequence[Record]) -> str:
    """In how many seeds the decoder ends with more what than level 0 and more where than the bottleneck."""
    pairs = [zip(of(last, "what"), of(top, "what")), zip(of(last, "where"), of(bottom, "where"))]
    held = [what > 0 and where > 0 for what, where in zip(*([surely(*pair) for pair in both] for both in pairs))]
    return (
        f"more *what* than encoder 0 and more *where* than the bottleneck, beyond the intervals, in {sum(held)} of "
        f"{len(held)} seeds"
    )


def _levels_table(layers: Sequence[Mapping[str, Record]], answers: Sequence[Record]) -> str:
    rows = []
    for name, first in layers[0].items():
        same = [of[name] for of in layers]
        keys = ("what", "where", "side", "untrained_what", "equal_what")
        rows.append([title(first["layer"]), *("" if first[key] is None else mean(same, key) for key in keys)])
    rows.append(["**the answer**", mean(answers, "answer_what"), mean(answers, "answer_where"), "", "", ""])
    return table(["layer", "what", "where", "which side", "what, untrained", "what, equally many features"], rows)


def _sight(full: Sequence[Record], show: Show) -> str:
    rows = [
        [same[0]["title"], pixels(one["theoretical"] for one in same)]
        + [pixels(one[key]["value"] for one in same) for key in ("half", "most", "restored")]
        + [over(one["share"] for one in same)]
        for same in zip(*(one["sights"]["sights"] for one in full))
    ]
    leaks = [leak for one in full for leak in one["sights"]["leaks"]]
    failed = sum(not leak["holds"] for leak in leaks)
    objects = ", ".join(f"{one['name']} {one['typical']:.0f} px" for one in full[0]["objects"] if not one["fills"])
    columns = ["layer", "can see, px", "half of the influence in", "95 % in", "enough to answer", "95 %, as a share"]
    return f"""## How far does each layer see?

{table(columns, rows)}

{show("unet/sight", "What each layer can see, and what it does see")}

The output can see {pixels(output(one)["theoretical"] for one in full)} px; 95 % of what moves it lies in a square of
{pixels(output(one)["most"]["value"] for one in full)} px (Luo et al. 2016, arXiv 1701.04128, found effective fields to
be a fraction of the theoretical). Typical objects: {objects}. That nothing outside the theoretical windows matters was
tried on {sum(leak["tried"] for leak in leaks)} units, by noise everywhere outside: in {failed} of {len(leaks)} checks
one moved.
"""


def _skips(seeds: Seeds, scores: Sequence[Record], show: Show) -> str:
    worths = [one["skips"] for one in seeds["unet"]]
    rows = [["no path", *(mean([one["none"] for one in worths], score) for score in SCORES)]]
    for index, path in enumerate(worths[0]["paths"]):
        gains = [[one["worth"][score][index] for one in worths] for score in SCORES]
        rows.append([path["name"], *(mean(gain, "shapley") for gain in gains)])
    rows.append(["all paths", *(mean([one["full"] for one in worths], score) for score in SCORES)])
    never = mean([one["skips"]["full"] for one in seeds["no-skips"]], "mean IoU")
    apart = [f"- seed {one['seed']}: {', '.join(differences(one['difference'], COMPARED))}" for one in scores]
    return f"""## What would be lost without this skip?

{table(["", *SCORES], rows)}

Shapley values over all coalitions of paths; the steps from *no path* to *all paths* add up to the whole. An absent path
brings its data-set mean. Boundary F1 within 1 px.

{show("unet/skips", "What every path brings")}

**Cut after training is not the same as never had.** The trained U-Net with all its skips cut has a mean IoU of
{over(bottleneck_alone(one) for one in worths)}, whole {mean([one["full"] for one in worths], "mean IoU")}. A network
trained without skips, which learnt to do without, has {never}. So Shapley values tell what this network *uses*, not
what the architecture needs. U-Net minus no skips, both trained, on the same scenes (paired bootstrap):

{NEWLINE.join(apart)}
"""


def _pixel(full: Sequence[Record]) -> str:
    question = "Where does the answer for this pixel come from?"
    told = [f"- {' '.join(one['answers'][question])}" for one in full]
    return f"""## {question}

Of one telling pixel a seed:

{NEWLINE.join(told)}
"""


def _presence(full: Sequence[Record]) -> str:
    question = "What if it only had to say yes or no?"
    asked = [one["presence"] for one in full if one["presence"]]
    if not asked:
        return f"## {question}\n\n{' '.join(full[0]['answers'][question])}\n"
    accuracies, region = [one["accuracy"] for one in asked], asked[0]["region"]
    rows = [[title(one), mean(accuracies, one["name"])] for one in full[0]["layers"]]
    bottom = over(found["bottleneck"]["value"] for found in accuracies)
    return f"""## {question}

Asked of features averaged over each {region}, so that within it no place is left (chance 0.50):

{table(["layer", "is it there?"], rows)}

A linear probe on the bottleneck's average, which needs no right half of the U, has a balanced accuracy of {bottom}.
What probes on the levels of the decoder answer better is in the table.
"""


def _versions(one: Record) -> str:
    return ", ".join(f"{name} {version}" for name, version in one["versions"].items())


# ---- real data


def real_page(folder: Path, pictures: Path) -> str:
    """The page of the real data sets."""
    told = {one.parent.name: read(one) for one in sorted(folder.glob("*/measurements.json"))}
    apart = {one.parent.name: read(one) for one in sorted(folder.glob("*/difference.json"))}
    sets = [_one_set(name, one, partial(_shown, folder, pictures)) for name, one in told.items()]
    return f"""# Real data, measured

*Made by `docs/make_measured_pages.py` from the files of `bench/explain_real.py`: every number below was read from them,
none was typed.*

What drawn scenes show cleanly ([unet-intuition-measured.md](unet-intuition-measured.md)), real images show less
cleanly, or not at all. One network a data set, trained by `bench/real_data.py`{_with(told)}:
a few minutes each, as in a first try; what CamVid's reaches in an hour is in [RESULTS](../bench/RESULTS.md).
Intervals, in brackets, are over validation images; they say nothing about other trainings.

## Where this agrees with the textbook, and where not

{_agreement(told)}

*Yes* and *no* where the 95 % intervals do not overlap (for worths: do not hold zero) and come of {ENOUGH} images at
least, else *not shown*; which level is highest, and how much of a field is used, go by the values themselves. Worths
are Shapley values. Published: skips worth 0 to 0.14 Dice to networks trained without them (Kamath et al., MICCAI 2023);
a *top* skip that hurts (Wilm et al., arXiv 2402.08276); effective fields a fraction of the theoretical (Luo et al.
2016, arXiv 1701.04128).

{_ablated_or_retrained(told, apart)}
{NEWLINE.join(sets)}"""


def _with(told: Mapping[str, Record]) -> str:
    """Versions, where one was used for all."""
    said = {_versions(one) for one in told.values() if one.get("versions")}
    return f" ({said.pop()})" if len(said) == 1 else ""


def _one_set(name: str, one: Record, show: Show) -> str:
    lines = [f"## {name}", "", f"{one['network']}; {len(one['images'])} validation images.", ""]
    for source in ("levels", "painted-0", "sight", "skips"):
        lines += [show(f"{name}/{source}", f"{name}: {source}"), ""]
    for question, said in one["answers"].items():
        lines += [f"**{question}**", "", *(f"- {sentence}" for sentence in said), ""]
    causes = [f"- *{found['cause']}*: {found['words']}" for found in one["diagnoses"] if found["found"]]
    if causes:
        lines += ["**Why is it black, wrong or blocky?**", "", *causes, ""]
    return NEWLINE.join([*lines, *(f"*{note}*\n" for note in one["notes"])])


def _agreement(told: Mapping[str, Record]) -> str:
    """The textbook's claims, a row each, and what every data set says to them."""
    claims: dict[str, Callable[[Record], str]] = {
        "*What* rises from encoder 0 to the bottleneck": lambda one: _above(one, "bottleneck", "encoder.0", "what"),
        "Training makes it rise": _by_training,
        "*What* is highest at the bottleneck": _highest,
        "*Where* falls from encoder 0 to the bottleneck": lambda one: _above(one, "encoder.0", "bottleneck", "where"),
        "The decoder ends with more *where* than the bottleneck": (
            lambda one: _above(one, "decoder.0", "bottleneck", "where")
        ),
        "It sees as far as its receptive field, where the images show all of it": _sees,
        "The top skip brings edges (Boundary F1)": lambda one: _brings(one, "Boundary F1", 0),
        "The top skip helps (mean IoU)": lambda one: _brings(one, "mean IoU", 0),
        "The bottleneck brings meaning (interior accuracy)": lambda one: _brings(one, "interior accuracy", -1),
    }
    rows = [[claim, *(ask(one) for one in told.values())] for claim, ask in claims.items()]
    return table(["the textbook says", *told], rows)


def _above(one: Record, higher: str, lower: str, key: str) -> str:
    found = readings(one)
    if higher not in found or lower not in found:
        return "not measured"
    said = {1: "yes", 0: "not shown", -1: "**no**"}[surely(found[higher][key], found[lower][key])]
    return f"{said}: {ranged(found[higher][key])} against {ranged(found[lower][key])}"


def _by_training(one: Record) -> str:
    """The bottleneck against that of an untrained twin: pooling alone tells more than single units at the top."""
    found = readings(one)["bottleneck"]
    if found["untrained_what"] is None:
        return "not measured"
    said = {1: "yes", 0: "not shown", -1: "**no**"}[surely(found["what"], found["untrained_what"])]
    return f"{said}: {ranged(found['what'])} against {ranged(found['untrained_what'])} untrained"


def _highest(one: Record) -> str:
    down = [found for found in readings(one).values() if found["layer"]["role"] in ("encoder", "bottleneck")]
    if not down:
        return "not measured"
    best = max(down, key=lambda found: found["what"]["value"])
    said = "yes" if best["layer"]["role"] == "bottleneck" else f"**no**: at {title(best['layer'])}"
    return f"{said}: {ranged(best['what'])}"


def _sees(one: Record) -> str:
    out = output(one)
    if out["share"] is None:
        return "no bound"
    said = "not shown" if out["visible"] < out["theoretical"] else "yes" if out["share"] > 0.9 else "**no**"
    of = f"{out['visible']} px" + (f" shown of {out['theoretical']}" if out["visible"] < out["theoretical"] else "")
    return f"{said}: 95 % in {out['most']['value']:.0f} of {of}"


def _brings(one: Record, score: str, path: int) -> str:
    found = one["skips"]["worth"].get(score)
    if found is None:
        return "not measured"
    value = found[path]["shapley"]
    low, high = value["low"], value["high"]
    said = "not shown" if low is None or few(value) or low <= 0 <= high else "yes" if low > 0 else "**no**"
    return f"{said}: {ranged(value)}"


def _ablated_or_retrained(told: Mapping[str, Record], apart: Mapping[str, Record]) -> str:
    """All skips cut from the trained network, beside a network trained without any."""
    if not apart:
        return ""
    rows = []
    for name, comparison in apart.items():
        worths = told[name]["skips"]
        cut = worths["full"]["mean IoU"]["value"] - bottleneck_alone(worths)
        rows.append([name, f"{cut:+.3f}", *(one.split(" ", 2)[2] for one in differences(comparison, COMPARED))])
    columns = ["data", "mean IoU: cut after training", "mean IoU: never had", "mean Dice: never had", "Boundary F1"]
    return f"""## What the skips are worth: cut, or never had

{table(columns, rows)}

By how much the network with skips is better: than itself with all skips cut (their data-set mean in their place), and
than a network that was trained without, for as many steps (paired bootstrap over validation images). The second is what
Kamath et al. measured. The first is over the images that are explained, at most 20, the second over all of val/.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=Path, default=HERE.parent / "bench/out/explain_scenes")
    parser.add_argument("--real", type=Path, default=HERE.parent / "bench/out/explain_real")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the pages")
    args = parser.parse_args()
    pages = {"unet-intuition-measured": (scenes_page, args.scenes), "real-data-measured": (real_page, args.real)}
    for name, (page, source) in pages.items():
        if any(source.glob("*/")):  # a benchmark that has not run leaves its page as it is
            pictures = args.out / name
            pictures.mkdir(parents=True, exist_ok=True)
            (args.out / f"{name}.md").write_text(page(source, pictures), encoding="utf-8")


if __name__ == "__main__":
    main()
