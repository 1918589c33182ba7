/** What is different from the untouched painting: where, how much, and whether it is better or worse. */
import { h, fill, figure, percent } from "./dom.js";
import { chip } from "./class-chip.js";
import { paintLabels } from "./colours.js";

const MOST_CLASSES = 4;

export class ChangePanel {
  /** @param {{difference: () => void}} says */
  constructor(says) {
    this.head = h("p", { class: "change-head" });
    this.canvas = /** @type {HTMLCanvasElement} */ (h("canvas", { width: 1, height: 1 }));
    this.button = h("button", { type: "button", class: "difference-button", "aria-pressed": "false", onclick: () => says.difference() }, this.canvas);
    this.words = h("p", { class: "small" });
    this.scores = h("div", { class: "bars scores" });
    this.ious = h("div", { class: "bars ious" });
    this.element = h("section", { class: "panel change-panel", "aria-label": "What changed" },
      h("h2", { text: "What changed" }), this.head,
      this.scores, h("div", { class: "halves" }, h("div", { class: "difference" }, this.button), h("div", {}, this.words, this.ious)));
  }

  /**
   * @param {import("./colours.js").ClassLook[]} looks
   * @param {{now: Uint8Array, before: Uint8Array, truth: Uint8Array | null, width: number, height: number, touched: boolean,
   *   record: import("./types.js").PaintingRecord}} seen
   */
  set(looks, seen) {
    const { now, before, truth, record } = seen;
    paintLabels(this.canvas, now, seen.width, seen.height, looks, { strength: (at) => Number(now[at] !== before[at]) });
    let lost = 0, won = 0, changed = 0;
    for (let at = 0; at < now.length; at++) {
      if (now[at] === before[at]) continue;
      changed++;
      if (truth && before[at] === truth[at]) lost++;
      if (truth && now[at] === truth[at]) won++;
    }
    const head = !seen.touched ? "No change yet: turn a skip down, or brush on the image."
      : `${percent(record.changed)} of the pixels changed their label`;
    fill(this.head, h("span", { class: seen.touched ? "" : "quiet", text: head }));
    const sides = truth ? `${lost.toLocaleString("en")} px were right and are not, ${won.toLocaleString("en")} px became right.` : "";
    fill(this.words, seen.touched && changed ? sides : seen.touched ? "Not one label changed." : "");
    this.setScores(looks, record);
    this.button.setAttribute("aria-label", `Difference picture: ${seen.touched ? head : "nothing changed"}. ${sides}`);
    this.outside(record);
  }

  clear() {
    [this.canvas.width, this.canvas.height] = [1, 1];
    for (const part of [this.head, this.words, this.scores, this.ious]) fill(part);
    this.button.setAttribute("aria-label", "Difference picture: nothing to show");
  }

  /** A painting that did not come: nothing of the one before is said. @param {(() => void) | null} again  null: it is asked for again by itself */
  miss(again) {
    this.clear();
    fill(this.head, again ? "This could not be painted. " : "Not painted yet: it is asked for again.",
      again ? h("button", { type: "button", text: "Try again", onclick: again }) : null);
  }

  /** The promise of the receptive field, checked. @param {import("./types.js").PaintingRecord} record */
  outside(record) {
    if (!record.edited) return;
    const { outside_changed: labels, largest_outside: largest, window: [y0, y1, x0, x1] } = record.edited;
    if (x1 - x0 >= this.canvas.width && y1 - y0 >= this.canvas.height) {
      fill(this.words, "The border around all that the brush can reach is the whole image: there is nothing beyond it.");
      return;
    }
    const said = labels === 0 && largest === 0 ? "Beyond the dashed border nothing changed, to the last digit."
      : `Beyond the dashed border ${labels} labels changed; the largest logit difference is ${largest.toExponential(1)}.`;
    fill(this.words, said);
  }

  /** @param {import("./colours.js").ClassLook[]} looks @param {import("./types.js").PaintingRecord} record */
  setScores(looks, record) {
    const now = record.scores, full = record.full_scores;
    if (!now || !full) {
      fill(this.scores, h("p", { class: "small quiet", text: "No mask is known for this image, so better or worse can't be told." }));
      fill(this.ious);
      return;
    }
    const ious = looks.filter(Boolean).map((look) => ({ look, now: now.iou[look.id] ?? null, full: full.iou[look.id] ?? null }))
      .filter((one) => one.now !== null || one.full !== null);
    const moved = (/** @type {{now: number | null, full: number | null}} */ one) => Math.abs((one.now ?? 0) - (one.full ?? 0));
    const most = [...ious].sort((one, other) => moved(other) - moved(one)).slice(0, MOST_CLASSES); // what changed most, first
    const more = ious.length - most.length;
    fill(this.scores,
      row(h("span", { class: "score-name what", text: "interior" }), now.interior, full.interior, "what",
        full.interior === null ? "not scored, as at most one class has pixels far from label edges here" : "accuracy far from label edges: what"),
      row(h("span", { class: "score-name where", text: "boundary" }), now.boundary, full.boundary, "where", "accuracy at label edges: where"));
    fill(this.ious, ...most.map((one) => row(chip(looks, one.look.id), one.now, one.full, "", `IoU of ${one.look.name}`)),
      more ? h("p", { class: "small quiet", text: `and ${more} more ${more === 1 ? "class" : "classes"}` }) : null);
  }

  /** @param {boolean} large */
  setLarge(large) { this.button.setAttribute("aria-pressed", String(large)); }
}

/** @param {HTMLElement} name @param {number | null} now @param {number | null} full */
function row(name, now, full, /** @type {string} */ kind, /** @type {string} */ title) {
  const delta = now === null || full === null ? 0 : now - full;
  const bar = h("span", { class: `bar ${kind}` }, h("i", { style: { width: `${100 * (now ?? 0)}%` } }),
    h("b", { class: "tick", style: { left: `${100 * (full ?? 0)}%` } }));
  const change = Math.abs(delta) < 0.005 ? "" : `${delta > 0 ? "+" : "−"}${Math.abs(delta).toFixed(2)}`;
  return h("div", { class: "bar-row", title: `${title}: ${figure(now)}; untouched ${figure(full)}` }, name, bar,
    h("span", { class: "number", text: figure(now) }), h("span", { class: `delta ${delta < 0 ? "worse" : "better"}`, text: change }));
}
