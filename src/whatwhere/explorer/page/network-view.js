/**
 * One network and what it makes of one image: the image, the U, the painting, the pixel, and what changed.
 *
 * Two of these stand beside each other when two models are compared; they share the image, the pixel, the pointer and
 * the brush through the store, and have each their own skips.
 */
import { h, fill, figure, afterPause, percent } from "./dom.js";
import { ApiError, Newest, mayComeBack } from "./api.js";
import { PicturePanel } from "./picture-panel.js";
import { UView, levelColour, levelIsLight, shortName } from "./u-view.js";
import { PixelPanel } from "./pixel-panel.js";
import { ChangePanel } from "./change-panel.js";
import { FAILURES, Seen, UNTIL_AGAIN } from "./seen.js";
import { paintCertainty, paintLabels, paintEvidence, VOID } from "./colours.js";
import { factsOf, shares } from "./pictures.js";
import { telling } from "./places.js";
import { legendChip } from "./class-chip.js";
import { previewEdit } from "./brush.js";

const LOOKS = [["painting", "Painting"], ["difference", "Difference"], ["truth", "Mask"], ["certainty", "Certainty"]];

export class NetworkView {
  /**
   * @param {import("./state.js").Store} store
   * @param {0 | 1} slot  the first or the second of two
   * @param {{trouble: (error: unknown) => void, seen: (view: NetworkView) => void, told: (view: NetworkView) => void,
   *   brush: import("./brush.js").Brush}} says
   */
  constructor(store, slot, says) {
    this.store = store;
    this.slot = slot;
    this.says = says;
    /** @type {Seen | null} */
    this.seen = null;
    /** @type {import("./types.js").Model | null} that the U is drawn for */
    this.shown = null;
    this.turn = 0;
    /** @type {string | null} the layer whose picture the pointer is over */
    this.regarded = null;
    this.paintings = new Newest();
    this.stories = new Newest();
    /** @type {AbortController | null} */
    this.gathering = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} that asks again for a painting that did not come */
    this.painter = undefined;
    this.askEvidence = afterPause(250, () => this.gatherEvidence());
    const choose = (/** @type {{x: number, y: number}} */ at) => store.set(at);
    const point = (/** @type {{x: number, y: number} | null} */ at) => store.point(at);
    const here = () => ({ x: store.state.x, y: store.state.y });
    this.image = new PicturePanel("The image", { point, choose, here, ...says.brush.hands() });
    this.painting = new PicturePanel("The painting", { point, choose, here });
    this.u = new UView({ path: (name, hold) => this.setPath(name, hold), layer: (layer) => store.set({ layer }), point, choose,
      regard: (layer) => { this.regarded = layer; this.showHere(); } });
    this.u.setSlot(`slot ${slot} `);
    this.pixel = new PixelPanel({ evidence: () => store.set({ evidence: !store.state.evidence }) });
    this.change = new ChangePanel({ difference: () => store.set({ look: store.state.look === "difference" ? "painting" : "difference" }) });
    this.element = this.assemble();
    store.watch((changed) => this.react(changed));
    store.watchPointer(() => this.showHere());
  }

  assemble() {
    this.title = h("h2", { class: "network-title" });
    this.legend = h("div", { class: "legend", role: "group", "aria-label": "Classes" });
    const { legend } = this; // one of many classes is scrolled, by keyboard too
    new ResizeObserver(() => { if (legend.scrollHeight > legend.clientHeight) legend.setAttribute("tabindex", "0"); else legend.removeAttribute("tabindex"); }).observe(legend);
    this.scale = h("p", { class: "caption scale", hidden: true });
    this.looks = LOOKS.map(([look, name]) => h("button", { type: "button", class: "tab", "data-look": look, text: name,
      onclick: () => this.store.set({ look: /** @type {any} */ (look) }) }));
    this.imageHead = h("div", { class: "picture-head" }, h("h2", { text: "Image" }), h("span", { class: "picture-facts" }));
    const paintingHead = h("div", { class: "picture-head" }, h("div", { class: "tabs", role: "group", "aria-label": "What is seen at the right top" }, ...this.looks));
    const element = h("article", { class: "network", "data-slot": this.slot, "aria-busy": "true" }, this.title,
      h("section", { class: "image-side", "aria-label": "The image" }, this.imageHead, this.image.element,
        h("p", { class: "caption", text: "Frames: what one unit of each level sees here." })),
      this.u.element,
      h("section", { class: "painting-side", "aria-label": "The painting" }, paintingHead, this.painting.element, this.scale, this.legend),
      this.pixel.element, this.change.element);
    if (this.slot) for (const part of element.querySelectorAll("section")) part.setAttribute("aria-label", `Second network: ${part.getAttribute("aria-label")}`);
    return element;
  }

  get modelId() { return this.slot === 0 ? this.store.state.model : this.store.state.other; }
  get paths() { return this.slot === 0 ? this.store.state.paths : this.store.state.otherPaths; }

  /** @param {string} name @param {import("./types.js").Hold} hold */
  setPath(name, hold) {
    const paths = { ...this.paths };
    if (hold === "pass" || hold === 1) delete paths[name];
    else paths[name] = hold;
    this.store.set(this.slot === 0 ? { paths } : { otherPaths: paths });
  }

  /** @param {import("./types.js").ImageRecord | null} image */
  async load(image) {
    const turn = ++this.turn;
    const modelId = this.modelId;
    this.gathering?.abort();
    clearTimeout(this.painter);
    this.image.lift();
    this.evidenceAt = "";
    if (!modelId || !image) {
      this.seen = null; // what it waits for is not wanted
      this.element.classList.remove("painting-waits");
      this.element.setAttribute("aria-busy", "false");
      return;
    }
    this.element.setAttribute("aria-busy", "true");
    try {
      const seen = await Seen.of(modelId, image);
      if (turn !== this.turn) return;
      this.show(seen);
      this.followLevels(seen);
    } catch (error) {
      if (turn === this.turn) {
        this.says.trouble(error);
        this.forget(image, () => this.load(image));
      }
    } finally {
      if (turn === this.turn) this.element.setAttribute("aria-busy", "false");
    }
  }

  /** An image that could not be had: nothing of the last one stays, which would pass for it.
   * @param {import("./types.js").ImageRecord} image @param {() => void} again */
  forget(image, again) {
    this.seen = this.shown = this.signed = null;
    for (const panel of [this.image, this.painting]) panel.clear(`${image.name} could not be shown`);
    this.setFacts(image.name);
    this.u.fail(again);
    this.pixel.clearStory();
    this.pixel.clearEvidence("no image");
    this.pixel.clearImage();
    this.change.clear();
    this.element.classList.remove("painting-waits");
    this.says.seen(this);
  }

  /** @param {Seen} seen */
  show(seen) {
    const { model, looks, width, height } = seen;
    if (this.shown !== model) this.u.setModel(model, looks);
    this.shown = model;
    this.seen = seen;
    this.signed = null; // of the last image
    fill(/** @type {Element} */ (this.title), model.name, model.title && model.title !== model.name ? h("span", { class: "quiet", text: model.title }) : null);
    this.showLegend(seen);
    this.setFacts(`${seen.image.name} · ${factsOf(seen.image)}`);
    this.u.setWindows(seen.windows);
    this.image.setSize(width, height);
    this.painting.setSize(width, height);
    this.pixel.setImage(seen.picture, width, height);
    this.u.setPaths(this.paths);
    this.u.setLayer(this.store.state.layer);
    this.u.setReadings(null);
    this.drawAll();
    this.settle(seen);
    this.repaint();
    this.askPixel();
    this.says.seen(this);
  }

  /** @param {Seen} seen */
  showLegend({ looks }) {
    const { patterns } = this.store.state;
    fill(/** @type {Element} */ (this.legend), ...looks.filter(Boolean).map((look) => legendChip(looks, look.id, patterns)));
  }

  /** The title holds all of it, where there is no room. @param {string} words */
  setFacts(words) {
    const facts = /** @type {HTMLElement} */ (this.imageHead.querySelector(".picture-facts"));
    facts.textContent = facts.title = words;
  }

  /** Where no pixel of the image is chosen, one is that tells something. @param {Seen} seen */
  settle(seen) {
    const { x, y } = this.store.state;
    if (x < 0 || y < 0 || x >= seen.width || y >= seen.height) this.store.set(telling(seen));
  }

  /** @param {Seen} seen */
  async followLevels(seen) {
    const wanted = () => this.seen === seen;
    try {
      await seen.waitForLevels((probes) => {
        if (wanted()) this.u.setWait(probes.why ? `No probes: ${probes.why}` : probes.ready ? "" : `Fitting a probe to every level: ${percent(probes.share)}`);
      }, wanted);
      if (!wanted()) return;
      this.drawLevels();
      this.askPixel();
      this.says.seen(this);
    } catch (error) {
      if (!wanted()) return;
      seen.failed = error;
      this.u.setWait("");
      this.drawLevels();
      this.says.seen(this);
      this.says.trouble(error);
    }
  }

  /** @param {Set<string>} changed */
  react(changed) {
    if (!this.seen || !this.modelId || this.seen.image.id !== this.store.state.image) return; // of the last image nothing is asked
    const own = this.slot === 0 ? "paths" : "otherPaths";
    if (changed.has(this.slot === 0 ? "model" : "other") || changed.has("image")) return; // `load` follows
    if (changed.has("x") || changed.has("y")) this.settle(this.seen);
    if (changed.has(own)) this.u.setPaths(this.paths);
    if (changed.has("edits")) this.preview();
    if (changed.has(own) || changed.has("edits")) this.repaint();
    if (changed.has("x") || changed.has("y") || changed.has(own) || changed.has("edits")) this.askPixel();
    if (changed.has("layer")) this.u.setLayer(this.store.state.layer);
    if (changed.has("patterns")) {
      this.showLegend(this.seen);
      this.drawLevels();
    }
    if (changed.has("look") || changed.has("patterns")) this.drawPainting();
    if (changed.has("evidence")) this.drawImage();
    this.showHere();
  }

  /** Paths that this network lacks, which only an address can name. @param {Seen} seen @returns {boolean} whether there were any */
  dropUnknown(seen) {
    const paths = seen.known(this.paths);
    const unknown = Object.keys(this.paths).filter((name) => !Object.hasOwn(paths, name));
    if (!unknown.length || seen.model.id !== this.modelId) return false;
    this.says.trouble(new ApiError(404, { given: `the address names ${unknown.map((name) => `path ${name}`).join(" and ")}`,
      expected: `a path of ${seen.model.name}: ${seen.model.paths.map((path) => path.name).join(", ")}`, remedy: "turn the valves on the U" }));
    this.store.set(this.slot === 0 ? { paths } : { otherPaths: paths }); // and repaints
    return true;
  }

  /** @param {number} failures  how often this painting did not come */
  repaint(failures = 0) {
    clearTimeout(this.painter);
    const seen = this.seen;
    if (!seen || this.dropUnknown(seen)) return;
    this.element.classList.add("painting-waits");
    this.paintings.run(async () => {
      let again = false;
      try {
        const { edits } = this.store.state;
        const touched = Object.keys(seen.known(this.paths)).length > 0 || edits.length > 0;
        const painted = touched ? await seen.paint(this.paths, edits) : seen.untouched;
        if (this.seen !== seen) return;
        seen.painted = painted;
        this.drawTouched();
        this.says.told(this);
        if (failures) this.askPixel(); // its story may have failed with the painting
      } catch (error) {
        if (!failures) this.says.trouble(error);
        if (this.seen === seen && !this.paintings.next) again = this.miss(seen, error, failures + 1); // else a newer one comes
      } finally {
        if (!again) this.element.classList.remove("painting-waits");
      }
    });
  }

  /** What is painted is not of the valves and the brush as they are.
   * @param {Seen} seen @param {unknown} error @param {number} failures @returns {boolean} whether it is asked for again */
  miss(seen, error, failures) {
    const again = mayComeBack(error) && failures < FAILURES;
    this.drawImage(); // what was brushed ahead of the answer is not painted
    this.change.miss(again ? null : () => this.repaint());
    if (again) this.painter = setTimeout(() => { if (this.seen === seen) this.repaint(failures); }, UNTIL_AGAIN);
    return again;
  }

  askPixel() {
    const seen = this.seen;
    const { x, y, edits } = this.store.state;
    if (!seen || x < 0 || x >= seen.width || y >= seen.height) return;
    if (seen.at(x, y).label === VOID) {
      this.clearPixel(seen);
      return;
    }
    this.stories.run(async () => {
      try {
        const story = await seen.tellPixel(x, y, this.paths, edits);
        const { state } = this.store;
        if (this.seen !== seen || state.x !== x || state.y !== y) return; // another pixel was chosen: its answer comes
        seen.story = { ...story, x, y };
        this.pixel.setStory(seen.looks, seen.story);
        this.u.setReadings(story.readings);
        this.says.told(this);
      } catch (error) {
        this.pixel.clearStory();
        this.says.trouble(error);
      }
    });
    const at = `${x} ${y} ${seen.model.id} ${seen.image.id} ${JSON.stringify(edits)}`;
    if (this.evidenceAt !== at) {
      this.evidenceAt = at;
      seen.story = seen.evidence = null; // of another pixel
      this.gathering?.abort();
      this.pixel.waitForStory();
      this.u.setReadings(null);
      this.pixel.waitForEvidence();
      this.signed = null;
      this.drawOver();
      this.askEvidence();
    }
  }

  /** The chosen pixel has no data, so nothing is asked about it. @param {Seen} seen */
  clearPixel(seen) {
    this.gathering?.abort();
    this.evidenceAt = "";
    seen.story = seen.evidence = this.signed = null;
    this.pixel.clearStory();
    this.pixel.clearEvidence("there is no data here");
    this.u.setReadings(null);
    this.drawOver();
    this.showHere();
  }

  async gatherEvidence() {
    const seen = this.seen;
    const { x, y, edits } = this.store.state;
    if (!seen || x < 0 || x >= seen.width || y >= seen.height || seen.at(x, y).label === VOID) return;
    const gathering = (this.gathering = new AbortController());
    try {
      const { record, signed } = await seen.askEvidence(x, y, edits, gathering.signal, this.slot);
      if (gathering.signal.aborted || this.seen !== seen) return;
      this.signed = signed;
      seen.evidence = record;
      this.pixel.setEvidence(seen.looks, record, signed, seen.width, seen.height);
      this.drawOver();
      this.says.told(this);
    } catch (error) {
      // a newer question took its place: its answer will come
      if (gathering.signal.aborted || /** @type {any} */ (error).status === 409) return;
      this.evidenceAt = "";
      this.pixel.clearEvidence("no evidence could be gathered");
      this.says.trouble(error);
    }
  }

  drawAll() {
    this.drawLevels();
    this.drawTouched();
  }

  /** What skips and brush can change; the levels are those of the image as it is. */
  drawTouched() {
    this.drawImage();
    this.drawPainting();
    this.drawChange();
    this.showHere();
  }

  drawImage() {
    const seen = this.seen;
    if (!seen) return;
    const { canvas } = this.image;
    [canvas.width, canvas.height] = [seen.width, seen.height];
    canvas.getContext("2d")?.drawImage(seen.painted.picture ?? seen.picture, 0, 0);
    this.drawOver();
    const { edits } = seen.painted;
    const edited = edits.length ? `, brushed over in ${edits.length} places` : "";
    this.image.describe(`Image ${seen.image.name}, ${seen.width} by ${seen.height} pixels${edited}. Arrow keys move the pixel, with shift by ten.`);
  }

  /** The newest stroke at once, until the server's picture of it comes. */
  preview() {
    const context = this.image.canvas.getContext("2d");
    const edit = this.store.state.edits.at(-1);
    if (this.seen && context && edit) previewEdit(context, edit);
  }

  drawOver() {
    const on = this.store.state.evidence && Boolean(this.signed);
    if (on && this.seen && this.signed) paintEvidence(this.image.over, this.signed, this.seen.width, this.seen.height);
    this.image.over.hidden = !on;
    this.image.surface.classList.toggle("greyed", on);
    this.pixel.setOver(this.store.state.evidence);
  }

  drawPainting() {
    const seen = this.seen;
    if (!seen) return;
    const { look, patterns } = this.store.state;
    const { labels, certainty } = seen.painted;
    const before = seen.untouched.labels;
    const shown = look === "truth" ? seen.truth : labels;
    const strength = look === "difference" ? (/** @type {number} */ at) => Number(labels[at] !== before[at]) : undefined;
    if (look === "certainty") paintCertainty(this.painting.canvas, certainty, labels, seen.width, seen.height);
    else paintLabels(this.painting.canvas, shown ?? new Uint8Array(labels.length).fill(255), seen.width, seen.height, seen.looks, { patterns, strength });
    for (const tab of this.looks ?? []) {
      tab.setAttribute("aria-pressed", String(tab.dataset.look === look));
      if (tab.dataset.look === "truth") /** @type {HTMLButtonElement} */ (tab).disabled = !seen.truth;
    }
    const told = [...shares(shown ?? labels)].filter(([id]) => seen.looks[id]).map(([id, share]) => `${seen.looks[id].name} ${percent(share)} of the pixels`).join(", ");
    const known = certainty.filter((_, at) => labels[at] !== VOID);
    const sure = known.reduce((sum, value) => sum + value, 0) / (255 * known.length);
    const names = { painting: `Painting by ${seen.model.name}: ${told}`, difference: `Difference from the untouched painting by ${seen.model.name}: ${told}`,
      truth: `Mask: ${told}`, certainty: `How sure ${seen.model.name} is of its painting: white is sure, black is not; on average ${figure(sure)}` };
    this.painting.describe(`${names[look]}. Arrow keys move the pixel.`);
    this.legend.classList.toggle("unused", look === "certainty");
    this.scale.hidden = look !== "certainty";
    fill(this.scale, `black 0, white 1: the probability of the painted class, on average ${figure(sure)}`);
    this.change.setLarge(look === "difference");
  }

  drawLevels() {
    const seen = this.seen;
    if (!seen) return;
    this.u.setPaintings(seen.levels, seen.picture, seen.untouched.labels, { patterns: this.store.state.patterns, hopeless: Boolean(seen.probes?.why || seen.failed) });
  }

  drawChange() {
    const seen = this.seen;
    if (!seen) return;
    const touched = seen.painted !== seen.untouched;
    this.change.set(seen.looks, { now: seen.painted.labels, before: seen.untouched.labels, truth: seen.truth, width: seen.width,
      height: seen.height, touched, record: seen.painted.record });
  }

  /** Frames, marks and words at the pixel that is looked at; asks nothing. */
  showHere() {
    const seen = this.seen;
    const { x, y } = this.store.here;
    if (!seen || x < 0 || x >= seen.width || y >= seen.height) return;
    const chosen = this.regarded ?? this.store.state.layer;
    const border = this.border();
    const frames = seen.model.layers.filter((one) => one.role === "encoder" || one.role === "bottleneck" || one.name === chosen).flatMap((layer) => {
      const box = seen.windows.window(layer.name, x, y);
      return box ? [{ box, colour: levelColour(seen.model, layer), name: shortName(layer), light: levelIsLight(seen.model, layer), strong: layer.name === chosen }] : [];
    });
    this.image.show([...frames, ...border], { x, y });
    this.painting.show(border, { x, y });
    this.u.setHere(x, y);
    this.pixel.setHead(seen.looks, seen.at(x, y));
  }

  /** Beyond which a brush stroke can change nothing. @returns {import("./picture-panel.js").Frame[]} */
  border() {
    const edited = this.seen?.painted.record.edited;
    if (!edited) return [];
    const [y0, y1, x0, x1] = edited.window;
    return [{ box: { x0, y0, x1, y1 }, colour: "var(--ink)", name: "", dashed: true }];
  }
}
