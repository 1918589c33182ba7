"""What the measurements say, in plain sentences, also where they disagree with the textbook. Knows the records only.

A difference is called one only where the two 95 % intervals do not overlap, and come of at least five images: over
fewer they are not worth their name.
"""

from __future__ import annotations

from math import inf

from whatwhere.data.findings import many
from whatwhere.explain.explanation import Explanation
from whatwhere.explain.levels import NOT_MEASURED, Levels, Reading
from whatwhere.explain.measured import Measured
from whatwhere.explain.pixel import PixelStory
from whatwhere.explain.presence import VISIBLE
from whatwhere.explain.skips import TOLD
from whatwhere.judge.bootstrap import ENOUGH

__all__ = ["aim", "answers", "levels", "measured_on", "pixel", "presence", "sight", "skips", "unseen"]


def answers(e: Explanation) -> dict[str, list[str]]:
    """The five questions of the report, and what the measurements answer."""
    return {
        "What is context, and what is a low-level feature?": levels(e),
        "How far does each layer see?": sight(e),
        "What would be lost without this skip?": skips(e),
        "Where does the answer for this pixel come from?": pixel(e),
        "What if it only had to say yes or no?": presence(e),
    }


def measured_on(e: Explanation) -> str:
    """How many images, and what they were held against."""
    against = "their masks" if e.truth else "the network's own painting (there are no masks)"
    return f"Measured on {many(len(e.images), 'image')} against {against}, in {e.seconds:.0f} seconds, seed {e.seed}."


def aim(e: Explanation) -> str:
    """What "right" means in this report."""
    return "truth" if e.truth else "own answer"


def unseen(e: Explanation) -> str:
    """What was held out where it is asked which side is which."""
    return "an image never seen" if len(e.images) > 1 else "a quarter of the image never seen"


def levels(e: Explanation) -> list[str]:
    """What rises and where falls down the U, or does not."""
    if e.levels is None:
        return [note for note in e.notes if note.startswith(NOT_MEASURED)]
    found = e.levels
    top, bottom = _top(found), found["bottleneck"]
    said = [_alone_sentence(bottom)] if top is bottom else [
        _what_sentence(top, bottom), _where_sentence(top, bottom, unseen(e))
    ]  # fmt: skip
    if found.readings[-1].layer.role == "decoder":
        said += _decoder_sentence(found)
    if bottom.what.value is None:
        return said
    said.append(_untrained_sentence(found))
    said.append(
        f"Controls: {_shuffled(found)}; with only {found.equal_features} random mixtures of features kept at every "
        f"level, what at the bottleneck is {bottom.equal_what} and where {bottom.equal_where}."
    )
    return said


def drawn(e: Explanation) -> str:
    """What intervals are over."""
    return "sources of images" if any(one.sources is not None for one in e.skips.full.values()) else "images"


def _top(found: Levels) -> Reading:
    return next(one for one in found.readings if one.layer.role != "pixel")


def _shuffled(found: Levels) -> str:
    """How far from chance probes come that have nothing to learn, each layer's by a shuffling of its own."""
    scores = [one.shuffled.value for one in found.readings if one.shuffled.value is not None]
    if not scores:
        return f"probes fitted on shuffled labels could not be scored (chance {found.chance:.2f})"
    mean = sum(scores) / len(scores)
    few = min(one.shuffled.independent for one in found.readings) < ENOUGH
    return (
        f"probes fitted on shuffled labels score {min(scores):.2f} to {max(scores):.2f}, {mean:.2f} on average (chance "
        f"{found.chance:.2f}): what was read within that range shows nothing"
        + (f", and of fewer than {ENOUGH} images the range itself is uncertain" if few else "")
    )


def _decoder_sentence(found: Levels) -> list[str]:
    last, before = found.readings[-1], [one for one in found.readings[:-1] if one.layer.role != "pixel"]
    read = {"what": last.what, "where": last.where}
    told = [f"{asked} is {value}" for asked, value in read.items() if value.value is not None]
    if not told:
        return []
    said = f"At the end of the decoder {' and '.join(told)}"
    what, where = (_least(before, asked) for asked in ("what", "where"))
    if _surely(last.what, what.what) <= 0 or _surely(last.where, where.where) <= 0:
        return [f"{said}."]
    return [f"{said}: more of both than where each is least ({what.layer.title}, {where.layer.title})."]


def _least(readings: list[Reading], asked: str) -> Reading:
    """Where least of it is read, of where it was measured."""

    def value(one: Reading) -> float:
        found: Measured = getattr(one, asked)
        return inf if found.value is None else found.value

    return min(readings, key=value)


def _alone_sentence(bottom: Reading) -> str:
    """What is read where nothing finer is, such as in a network that does not go down."""
    read = {"classes inside objects": bottom.what, "the two sides of edges (chance 0.50)": bottom.where}
    told = [f"{asked} with a balanced accuracy of {value}" for asked, value in read.items() if value.value is not None]
    if not told:
        return "Neither what nor where was measured; the notes say why."
    return (
        f"No finer level comes before the {bottom.layer.title}, so nothing is compared on the way down. A probe on its "
        f"single units tells {', and '.join(told)}."
    )


def _what_sentence(top: Reading, bottom: Reading) -> str:
    if top.what.value is None and bottom.what.value is None:
        return "What was not measured; the notes say why."
    step, fresh, fresh_top = _surely(bottom.what, top.what), bottom.untrained_what, top.untrained_what
    start = (
        f"What: inside objects, a probe on single units of {top.layer.title} tells classes with a balanced accuracy of "
        f"{top.what}, on the bottleneck {bottom.what}. "
    )
    if step > 0 and (fresh is None or _surely(bottom.what, fresh) > 0):
        return start + "Meaning grows on the way down, as the textbook has it."
    if step > 0 and fresh is not None and fresh_top is not None and _surely(fresh, fresh_top) > 0:
        return start + (
            f"It grows on the way down, but in an untrained network it does too, from {fresh_top} to {fresh}: that "
            "training adds to it was not shown."
        )
    if step > 0:
        return start + (
            f"It grows on the way down; the bottleneck of an untrained network tells {fresh}, so that training adds to "
            "it was not shown."
        )
    if step < 0:
        return start + "Here the textbook is wrong: the bottleneck tells less than the top level."
    return start + _undecided(top.what, bottom.what)


def _where_sentence(top: Reading, bottom: Reading, held_out: str) -> str:
    if top.where.value is None and bottom.where.value is None:
        return "Where was not measured; the notes say why."
    step = _surely(bottom.where, top.where)
    start = (
        f"Where: at edges, {top.layer.title} tells the two sides apart with a balanced accuracy of {top.where}, the "
        f"bottleneck {bottom.where} (chance 0.50). "
    )
    if bottom.layer.stride > 1:
        height, width = bottom.layer.cell
        start += (
            f"There each unit gives its whole cell of {height}x{width} px one answer: what its channels may say of "
            "places inside the cell is not counted, though the decoder may read some of it. "
        )
    end = f" Which side is which, in {held_out}, also needs some of what: {top.side} and {bottom.side}."
    if step < 0:
        return start + _lost(top, bottom) + end
    if step > 0:
        return start + "Here the textbook is wrong: the deeper units place edges better." + end
    return start + _undecided(top.where, bottom.where) + end


def _lost(top: Reading, bottom: Reading) -> str:
    """Whether training has a part in it that place is lost on the way down."""
    fresh_top, fresh = top.untrained_where, bottom.untrained_where
    if fresh_top is not None and fresh is not None and _surely(fresh, fresh_top) < 0:
        both = f"It falls on the way down; it falls in an untrained network too, from {fresh_top} to {fresh}: "
        if _surely(bottom.where, fresh) < 0:
            return f"{both}pooling has a part in it, but the trained network ends lower."
        return f"{both}pooling has a part in it; that training has one was not shown."
    return "Place is lost on the way down, as the textbook has it."


def _undecided(one: Measured, other: Measured) -> str:
    if None in (one.low, other.low):
        return "There are no intervals to compare: no difference was shown."
    if min(one.independent, other.independent) < ENOUGH:
        kind = "images" if (one.sources, other.sources) == (None, None) else "sources"
        return f"Fewer than {ENOUGH} {kind} hold it: too few to call it a difference."
    return "The intervals overlap: no difference was shown."


def _untrained_sentence(found: Levels) -> str:
    fresh = [one for one in found.readings if one.untrained_what is not None]
    best = max(fresh, key=lambda one: one.untrained_what.value or 0.0 if one.untrained_what else 0.0)
    said = (
        f"An untrained network of the same architecture, one drawn at random, reaches what {best.untrained_what} at "
        f"best ({best.layer.title}): that much comes from looking at a neighbourhood at all; "
    )
    learnt = max((one for one in found.readings if one.layer.role != "pixel"), key=lambda one: one.what.value or 0.0)
    if best.untrained_what is not None and _surely(learnt.what, best.untrained_what) > 0:
        said += f"{learnt.layer.title} of the trained one reaches {learnt.what}, more than that one untrained network."
    else:
        said += "that training adds to it was not shown."
    raw = next((one.what for one in found.readings if one.layer.role == "pixel"), learnt.what)
    return f"{said} Raw pixels do best: {raw}." if (raw.value or 0.0) > (learnt.what.value or 0.0) else said


def sight(e: Explanation) -> list[str]:
    """How far the output sees, and whether that suffices for the objects."""
    out = e.sights["output"]
    said = []
    if out.theoretical is None:
        said.append(f"Nothing bounds what an output pixel can see: {out.words}")
    if out.most.value is not None:
        of = f" {out.theoretical} px that it can see" if out.theoretical else " the whole image"
        share = f" ({out.share:.0%} of the side that these images show of it)" if out.share is not None else ""
        if out.theoretical is not None and out.most.value > out.theoretical:
            share = " (centred on the pixel; its window is not)"
        said.append(
            f"Of{of}, 95 % of what moves an output pixel lies in a square of {_side(out.most.value)} px{share}, half "
            f"of it in one of {_side(out.half.value)} px. A visible square of {_side(out.restored.value)} px suffices "
            "for the answer of the whole image, to within 5 %."
        )
    else:
        said.append(
            "In how large a square lies what moves an output pixel was not measured: of the pixels that were tried no "
            "gradient reaches the image, as where the last features are all 0."
        )
    large = max(
        (one for one in e.objects if one.objects >= 2 and not one.fills), key=lambda one: one.typical, default=None
    )
    if large is not None and out.most.value is not None:
        said.append(
            f"Your largest recurring objects ({large.name}) are typically {large.typical:.0f} px, at most "
            f"{large.largest} px" + _beside_objects(out.most, large.typical)
        )
    said.append(_leak_sentence(e))
    return said


def _beside_objects(most: Measured, typical: float) -> str:
    if most.low is None or most.high is None or most.low <= typical <= most.high or most.independent < ENOUGH:
        return "."
    return f": on average the evidence comes from a {'larger' if most.low > typical else 'smaller'} square than that."


def _side(value: float | None) -> str:
    """Of a square in pixels; half of what lies in one pixel lies in one pixel, too."""
    return f"{max(1.0, value):.0f}" if value else "0"


def _leak_sentence(e: Explanation) -> str:
    tried = sum(leak.tried for leak in e.sights.leaks)
    if not tried:
        return "The windows could not be checked: every one covers the whole image."
    if all(leak.holds for leak in e.sights.leaks):
        silent = [leak.layer for leak in e.sights.leaks if leak.tried and not leak.inside]
        return (
            f"Checked: with everything outside its theoretical window replaced by noise, none of {tried} units moved; "
            "with everything inside replaced, every one did"
            + (f", but for {', '.join(silent)}: nothing moves what was tried there." if silent else ".")
        )
    failed = [leak for leak in e.sights.leaks if not leak.holds]
    worst = max(failed, key=lambda leak: leak.outside / max(leak.inside, 1e-12))
    return f"The check FAILED: noise outside its window moved a unit of {worst.layer} by {worst.outside:.2g}."


def skips(e: Explanation) -> list[str]:
    """What is lost without each path."""
    if len(e.skips.paths) == 1:
        return ["This network has no skips: everything it paints passes through the bottleneck."]
    said = []
    if e.skips.constant:
        said.append("Whichever path is cut, the logits do not change: the answer does not depend on the image.")
    for score in ("interior accuracy", "Boundary F1"):
        if score not in e.skips.worth:  # no edge, neither painted nor true, or no two classes far from one
            said.append(f"{score} could not be measured: these images hold too little of what it counts.")
            continue
        ranked = sorted(e.skips.worth[score], key=lambda one: one.shapley.value or 0.0, reverse=True)
        first = ranked[0]
        gain = (e.skips.full[score].value or 0) - (e.skips.none[score].value or 0)
        name = "the bottleneck" if first.path.name == "bottleneck" else first.path.name
        sure = len(ranked) < 2 or _surely(first.shapley, ranked[1].shapley) > 0
        most = f"; {name} brings most: {_signed(first.shapley)}" if (first.shapley.value or 0.0) >= TOLD else ""
        if most and not sure:
            most += f", not shown to be more than {ranked[1].path.name}"
        said.append(f"All paths together bring {gain:.2f} of {score}{most}.")
    hurting = [
        f"{one.path.name} ({_signed(one.shapley)} {score})"
        for score in ("mean IoU", "Boundary F1")
        for one in e.skips.worth.get(score, ())
        if _surely_hurts(one.shapley)
    ]
    if hurting:
        said.append(f"Some paths hurt: {', '.join(hurting)}. This has been seen before (Wilm et al. 2024).")
    said.append(
        "These figures ablate the trained network: a path is replaced by its data-set mean and the rest does what it "
        "learnt to do with that path there. A network trained without the skip learns to do without, and often loses "
        "far less (0 to 0.14 Dice in Kamath et al. 2023). To measure that, train with --skips and run whatwhere "
        "compare."
    )
    if not e.skips.exact:
        said.append(
            "There are too many paths for every coalition; Shapley values are means over sampled orders, and their "
            "intervals allow for that."
        )
    return said


def _surely_hurts(worth: Measured) -> bool:
    """Beyond its interval, and by as much as is told."""
    return worth.high is not None and worth.high < 0 and (worth.value or 0.0) <= -TOLD and worth.independent >= ENOUGH


def pixel(e: Explanation) -> list[str]:
    """One pixel's answer."""
    story, names = e.pixel, e.classes.names
    verdict = ""
    if story.truth is not None:
        verdict = ", rightly" if story.truth == story.prediction else f", but it is {names[story.truth]!r}"
        verdict = verdict if e.truth else ""
    said = [
        f"Pixel x={story.x}, y={story.y} of {story.image} is painted {names[story.prediction]!r} with a probability "
        f"of {story.probability:.2f}{verdict}; the runner-up is {names[story.rival]!r}.",
        f"Half of the evidence lies in a square of {_side(story.half)} px around it, 95 % in one of "
        f"{_side(story.most)} px{_but_rough(story)}."
        if story.half is not None and story.most is not None
        else "Nothing in the image speaks for the one or the other.",
    ]
    if story.flip is None:
        all_tried = story.tried == len(story.cuts)
        some = "" if all_tried else " alone" if story.tried == 1 else f", up to {story.tried} together"
        said.append(f"Whatever paths are cut{some}, its label stays.")
    else:
        cut = " and ".join(story.flip.absent)
        said.append(
            f"The smallest cut that changes it is without {cut}: then it is painted {names[story.flip.label]!r}."
        )
    return said


def _but_rough(story: PixelStory) -> str:
    if not story.rough:
        return ""
    return (
        f", but only roughly so: along the path from the mean image the answer bends too often, and what was gathered "
        f"misses {story.completeness:.0%} of how far it moves"
    )


def presence(e: Explanation) -> list[str]:
    """The 1x1 case."""
    if e.presence is None and len(e.images) < 2:
        return ["Yes or no was not asked: a probe has to be fitted on other images, and there is one only."]
    if e.presence is None:
        return [
            "In these images every class is always or hardly ever there, or in one of them or one source alone, so yes "
            "or no could not be asked."
        ]
    names = " or ".join(repr(e.classes.names[c]) for c in e.presence.classes)
    accuracy, region = e.presence.accuracy, e.presence.region
    best, *others = sorted(accuracy, key=lambda name: accuracy[name].value or 0.0, reverse=True)
    layers = {layer.name: layer for layer in e.layers}
    top, bottom = next(iter(accuracy.values())), accuracy["bottleneck"]
    place = "all place" if region == "image" else f"place within the {region}"
    rivals = [name for name in others if _surely(accuracy[best], accuracy[name]) <= 0]
    ahead = ""
    if rivals:
        rival = "the bottleneck" if "bottleneck" in rivals else layers[rivals[0]].title
        ahead = f" (not shown to be better than {rival})"
    if layers[best].role == "decoder" and "bottleneck" not in rivals:
        ahead += ": the right half of the U adds to it"
    survives = (bottom.low or 0.0) > 0.5 and e.presence.fewest >= ENOUGH
    return [
        f"Asked of each {region} whether it holds {names} ({100 * VISIBLE:g} % of its pixels or more), a probe on "
        f"averages of the raw pixels has a balanced accuracy of {top}, of the bottleneck {bottom} (the mean of yes and "
        f"no; chance 0.50); {layers[best].title} does best{ahead}.",
        f"Averaging throws {place} away, and at the bottleneck the answer survives it: for yes or no, what alone can "
        f"do. A linear probe on these features, which needs no right half of the U, has a balanced "
        f"accuracy of {bottom}."
        if survives
        else f"Averaging throws {place} away; the bottleneck's average was not shown to answer better than chance.",
    ]


def _surely(one: Measured, other: Measured) -> int:
    """1 if the first is higher and the intervals do not overlap, -1 if it is lower, else 0."""
    if None in (one.low, one.high, other.low, other.high) or min(one.independent, other.independent) < ENOUGH:
        return 0
    assert one.low is not None
    assert one.high is not None
    assert other.low is not None
    assert other.high is not None
    return 1 if one.low > other.high else -1 if one.high < other.low else 0


def _signed(value: Measured) -> str:
    if value.low is None or value.high is None:
        return f"{value.value or 0:+.2f}"
    return f"{value.value or 0:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"
