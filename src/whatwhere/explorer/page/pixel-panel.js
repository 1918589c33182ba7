/** What is said about one pixel: its class, how sure, what would become of it without each path, and its evidence. */
import { h, fill, figure } from "./dom.js";
import { chip } from "./class-chip.js";
import { paintEvidence, VOID } from "./colours.js";

const MOST_BARS = 4;

export class PixelPanel {
  /** @param {{evidence: () => void}} says */
  constructor(says) {
    this.head = h("p", { class: "pixel-head" });
    this.bars = h("div", { class: "bars" });
    this.cuts = h("ul", { class: "cuts" });
    this.map = /** @type {HTMLCanvasElement} */ (h("canvas", { width: 1, height: 1, class: "evidence-map" }));
    this.under = /** @type {HTMLCanvasElement} */ (h("canvas", { width: 1, height: 1, class: "evidence-under" }));
    this.words = h("p", { class: "small evidence-words" });
    this.button = h("button", { type: "button", class: "evidence-button", "aria-pressed": "false", onclick: () => says.evidence() },
      this.under, this.map, h("span", { class: "spinner", "aria-hidden": "true" }));
    this.element = h("section", { class: "panel pixel-panel", "aria-label": "This pixel" },
      h("h2", { text: "This pixel" }), this.head,
      h("div", { class: "halves" }, h("div", {}, this.bars, this.cuts), h("div", { class: "evidence" }, this.words, this.button)));
    this.clearStory();
    this.clearEvidence("click a pixel");
  }

  /** The pixel under the pointer, from what is painted already.
   * @param {import("./colours.js").ClassLook[]} looks
   * @param {{x: number, y: number, label: number, probability: number, truth: number | null}} pixel */
  setHead(looks, pixel) {
    const at = h("span", { class: "where-at", text: `x ${pixel.x}, y ${pixel.y}` });
    if (pixel.label === VOID) {
      fill(this.head, at, h("span", { class: "quiet", text: "no data" }));
      return;
    }
    const says = pixel.truth === pixel.label ? "as in the mask" : "the mask says";
    const verdict = pixel.truth === null ? null : h("span", { class: "mask-says" }, says, pixel.truth === pixel.label ? null : chip(looks, pixel.truth));
    fill(this.head, at, chip(looks, pixel.label, figure(pixel.probability)), verdict);
  }

  clearStory() {
    fill(this.head, h("span", { class: "quiet", text: "Point at the image." }));
    fill(this.bars);
    fill(this.cuts);
    this.element?.classList.remove("story-waits");
  }

  /** What stands there is of the pixel before. */
  waitForStory() { this.element.classList.add("story-waits"); }

  /** @param {import("./colours.js").ClassLook[]} looks @param {import("./types.js").PixelRecord & {x: number, y: number}} story */
  setStory(looks, story) {
    this.element.classList.remove("story-waits");
    const best = story.probabilities.map((chance, id) => ({ chance, id })).sort((a, b) => b.chance - a.chance).slice(0, MOST_BARS);
    fill(this.bars, h("p", { class: "small quiet", text: `The chosen pixel, x ${story.x}, y ${story.y}` }), ...best.map(({ chance, id }) => {
      const bar = h("i", { style: { width: `${100 * chance}%`, background: looks[id].color } });
      return h("div", { class: "bar-row" }, chip(looks, id), h("span", { class: "bar" }, bar), h("span", { class: "number", text: figure(chance) }));
    }));
    const flips = story.flip && story.flip.absent.length > 1
      ? [h("li", { class: "cuts-head", text: "But it becomes, without" }), h("li", { class: "flips" }, h("span", { text: `${story.flip.absent.join(" and ")}` }), chip(looks, story.flip.label, figure(story.flip.chance), false))] : [];
    const kept = story.cuts.length && story.cuts.every((cut) => cut.label === story.untouched);
    fill(this.cuts, h("li", { class: "cuts-head", text: kept ? "The same without" : "What it becomes without" }),
      ...story.cuts.map((cut) => h("li", { class: cut.label === story.untouched ? "same" : "flips" }, h("span", { text: cut.absent.join(" and ") }),
        chip(looks, cut.label, figure(cut.chance), false))), ...flips);
  }

  /** @param {string} words */
  clearEvidence(words) {
    this.button.classList.remove("waits");
    this.map.hidden = true;
    this.words.textContent = words;
    this.button.setAttribute("aria-label", `Evidence map: ${words}`);
  }

  waitForEvidence() {
    this.button.classList.add("waits");
    this.map.hidden = true;
    this.words.textContent = "gathering the evidence …";
    this.button.setAttribute("aria-label", "Evidence map: being computed");
  }

  /** @param {import("./colours.js").ClassLook[]} looks @param {import("./types.js").EvidenceRecord} evidence
   * @param {Uint8Array} signed @param {number} width @param {number} height */
  setEvidence(looks, evidence, signed, width, height) {
    this.button.classList.remove("waits");
    paintEvidence(this.map, signed, width, height);
    this.map.hidden = false;
    const [prediction, rival] = [looks[evidence.prediction].name, looks[evidence.rival].name];
    const [half, most] = [evidence.half, evidence.most].map((side) => side && Math.round(side));
    fill(this.words, h("b", { class: "for", text: "gold" }), ` for ${prediction}, `, h("b", { class: "against", text: "teal" }), ` for ${rival}. `,
      half ? `Half in a square of ${half} px, 95 % in one of ${most} px${evidence.rough ? ", roughly" : ""}.` : "There is none.");
    const missed = `${figure(100 * evidence.completeness, 1)} % of how far the answer moves on the way from the mean image`;
    this.words.title = `integrated gradients, all paths passing; ${evidence.rough ? "too few steps: they miss" : "adds up within"} ${missed}`;
    this.button.setAttribute("aria-label", `Evidence map: what speaks for ${prediction} against ${rival}. `
      + `${half ? `Half of it lies in a square of ${half} pixels, 95 percent in one of ${most}.` : "There is none."} Press to lay it over the image.`);
  }

  /** @param {CanvasImageSource} image @param {number} width @param {number} height */
  setImage(image, width, height) {
    this.under.width = width;
    this.under.height = height;
    this.under.getContext("2d")?.drawImage(image, 0, 0);
  }

  /** No image lies under the evidence. */
  clearImage() { [this.under.width, this.under.height] = [1, 1]; }

  /** @param {boolean} over */
  setOver(over) { this.button.setAttribute("aria-pressed", String(over)); }
}
