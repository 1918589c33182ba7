/** Below the U: what excites the features of one level, what each path is worth here, and the yes-or-no question. */
import { h, fill, figure, withOptions } from "./dom.js";
import { askOnce, ApiError, mayComeBack } from "./api.js";
import { chip } from "./class-chip.js";
import { sentence } from "./notices.js";

export class Closer {
  /** @param {{layer: (name: string) => void, trouble: (error: unknown) => void}} says */
  constructor(says) {
    this.says = says;
    this.title = h("h2", { text: "Strongest features" });
    this.tabs = h("div", { class: "layer-tabs", role: "group", "aria-label": "Level whose features are shown" });
    this.maps = h("div", { class: "maps", "aria-live": "off" });
    this.worth = h("div", { class: "worth" });
    this.presence = h("div", { class: "presence" });
    this.element = h("section", { class: "closer", "aria-label": "A closer look" },
      h("section", { class: "panel features" }, h("div", { class: "features-head" }, this.title, this.tabs),
        h("p", { class: "small quiet", text: "Each map is one channel on this image; beside it the patches of some images here that excite it most, as large as the unit's window or 96 pixels." }), this.maps),
      h("section", { class: "panel worth-panel" }, h("h2", { text: "What each path is worth here" }), this.worth),
      h("section", { class: "panel presence-panel" }, h("h2", { text: "Only yes or no?" }), this.presence));
    this.asked = 0;
  }

  /** @param {import("./types.js").Model} model @param {string} layer */
  setLayer(model, layer) {
    const shown = model.layers.filter((one) => one.role !== "pixel" && one.role !== "output");
    if (this.tabsOf !== model.id) {
      this.tabsOf = model.id;
      fill(this.tabs, ...shown.map((one) => h("button", { type: "button", class: "tab", "data-layer": one.name, text: one.title, onclick: () => this.says.layer(one.name) })));
    }
    for (const tab of this.tabs.children) tab.setAttribute("aria-pressed", String(/** @type {HTMLElement} */ (tab).dataset.layer === layer));
    this.title.textContent = `Strongest features of ${shown.find((one) => one.name === layer)?.title ?? layer}`;
  }

  /** Asks for everything that belongs to one model, image and layer; a later call makes earlier answers stale.
   * @param {import("./seen.js").Seen} seen @param {string} layer */
  async show(seen, layer) {
    const { model, looks } = seen, image = seen.image.id;
    const turn = ++this.asked;
    const fresh = () => turn === this.asked;
    this.setLayer(model, layer);
    const key = `${model.id} ${image}`;
    if (this.pairOf !== key) {
      this.pairOf = key;
      this.presenceOf = ""; // of the same pair before: its answer is not here any more
      if (seen.truth) this.askWorth(model, image, () => this.pairOf === key);
      else fill(this.worth, words("No mask is known for this image, so what a path is worth can't be told."));
      fill(this.presence, words("waiting for the probes …"));
    }
    if (seen.probes?.ready && this.presenceOf !== key) {
      this.presenceOf = key;
      this.askPresence(model, image, looks, () => this.pairOf === key);
    } else if (seen.probes?.why && !seen.probes.ready) fill(this.presence, words(`No probe can answer: ${seen.probes.why}. Start again with labelled images: --data DATA`));
    else if (seen.failed && !seen.probes?.ready) fill(this.presence, sorry(seen.failed, null)); // the probes could not be asked at all
    this.maps.classList.add("waits");
    try {
      const found = await askOnce(`/api/models/${model.id}/images/${image}/features?layer=${encodeURIComponent(layer)}`);
      if (fresh()) fill(this.maps, ...found.maps.map(mapFigure));
    } catch (error) {
      if (fresh()) fill(this.maps, sorry(error, () => this.show(seen, layer)));
    } finally {
      if (fresh()) this.maps.classList.remove("waits");
    }
  }

  /** Nothing is seen that any of it could be said of. */
  clear() {
    this.asked++;
    this.pairOf = this.presenceOf = "";
    for (const part of [this.maps, this.worth, this.presence]) fill(part);
    this.maps.classList.remove("waits");
  }

  /** @param {import("./types.js").Model} model @param {string} image @param {() => boolean} fresh */
  async askWorth(model, image, fresh) {
    fill(this.worth, words("measuring …"));
    try {
      const found = await askOnce(`/api/models/${model.id}/skips?image=${image}`);
      if (fresh()) fill(this.worth, worthTable(found));
    } catch (error) {
      // given up for another image, and looked at again since
      if (error instanceof ApiError && error.status === 409 && fresh()) return this.askWorth(model, image, fresh);
      if (fresh()) fill(this.worth, sorry(error, () => this.askWorth(model, image, fresh)));
    }
  }

  /** @param {import("./types.js").Model} model @param {string} image @param {import("./colours.js").ClassLook[]} looks @param {() => boolean} fresh */
  async askPresence(model, image, looks, fresh) {
    try {
      const found = await askOnce(`/api/models/${model.id}/presence?image=${image}`);
      if (fresh()) fill(this.presence, presenceTable(found, looks));
    } catch (error) {
      if (mayComeBack(error)) this.presenceOf = "";
      if (fresh()) fill(this.presence, sorry(error, () => this.askPresence(model, image, looks, fresh)));
    }
  }
}

const words = (/** @type {string} */ text) => h("p", { class: "small quiet" }, ...withOptions(text));

/** @param {unknown} error @param {(() => void) | null} again */
function sorry(error, again) {
  if (!(error instanceof ApiError)) throw error;
  return h("div", { class: "sorry" }, words([error.given, error.remedy].filter(Boolean).map(sentence).join(". ")),
    again && mayComeBack(error) ? h("button", { type: "button", text: "Try again", onclick: again }) : null);
}

/** @param {import("./types.js").FeatureMap} map */
function mapFigure(map) {
  return h("figure", { class: "map" },
    h("img", { src: map.picture, alt: `Channel ${map.channel} on this image: brighter is stronger`, class: "map-picture" }),
    h("div", { class: "patches" }, ...map.patches.map((patch) =>
      h("img", { src: patch.picture, alt: `a patch that excites channel ${map.channel}, around x ${patch.x}, y ${patch.y}` }))),
    h("figcaption", { text: `channel ${map.channel}` }));
}

/** @param {{paths: {name: string, interior: number | null, boundary: number | null}[], note: string}} found */
function worthTable(found) {
  const most = Math.max(0.05, ...found.paths.flatMap((one) => [Math.abs(one.interior ?? 0), Math.abs(one.boundary ?? 0)]));
  const bar = (/** @type {number | null} */ value, /** @type {string} */ kind) => h("span", { class: `signed ${kind}` },
    h("i", { class: (value ?? 0) < 0 ? "minus" : "", style: { width: `${(50 * Math.abs(value ?? 0)) / most}%` } }));
  const rows = found.paths.map((one) => h("tr", {}, h("th", { scope: "row", text: one.name }),
    h("td", {}, bar(one.interior, "what")), h("td", { class: "n", text: signed(one.interior) }),
    h("td", {}, bar(one.boundary, "where")), h("td", { class: "n", text: signed(one.boundary) })));
  return h("div", {}, h("table", {}, h("thead", {}, h("tr", {}, h("td"), h("th", { scope: "col", colspan: 2, class: "what", text: "interior" }),
    h("th", { scope: "col", colspan: 2, class: "where", text: "boundary" }))), h("tbody", {}, ...rows)),
  h("p", { class: "small quiet", text: `Shapley values of accuracy: they add up from all paths silent to the whole network. ${found.note}` }));
}

/** @param {number | null} value */
const signed = (value) => (value === null ? "–" : `${Math.abs(value) < 0.005 ? "" : value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`);

/** @param {{classes: {id: number, name: string, probability: number | null, present: boolean | null}[], region: string, visible: number, score: import("./types.js").Measured}} found @param {import("./colours.js").ClassLook[]} looks */
function presenceTable(found, looks) {
  const rows = found.classes.map((one) => h("div", { class: "bar-row" }, chip(looks, one.id),
    h("span", { class: "bar" }, h("i", { style: { width: `${100 * (one.probability ?? 0)}%`, background: looks[one.id].color } })),
    h("span", { class: "number", text: one.probability === null ? "–" : figure(one.probability), title: one.probability === null ? "the other images show one answer only" : "" }),
    h("span", { class: "verdict", text: one.present === null ? "" : one.present ? "is there" : "is not" })));
  const asked = found.region === "image" ? "averaged over the whole image, all place thrown away: is there a …?"
    : `averaged over each ${found.region} of the image: is there a … in the likeliest one?`;
  const score = found.score.value;
  const counts = `A class counts as there from ${figure(100 * found.visible, 1)} % of the pixels.`;
  return h("div", {}, h("p", { class: "small", text: `Read from the bottleneck's features ${asked}` }),
    h("div", { class: "bars" }, ...rows),
    h("p", { class: "small quiet", text: score === null ? counts : `${counts} Balanced accuracy ${figure(score)}: the mean of yes and no over ${found.region === "image" ? "images" : `${found.region}s of images`} never seen (chance 0.50).` }));
}
