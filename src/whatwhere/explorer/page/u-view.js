/**
 * The U: every level as a picture of what its probe reads there, every skip as a valve that can be turned.
 *
 * A skip is drawn as its slider: how far the line is filled is how much of the features goes through. Knows one model
 * and what it is told; asks nothing of the server.
 */
import { h, s, fill, place, percent, figure, capital, stepOf } from "./dom.js";
import { layoutU } from "./u-layout.js";
import { paintLabels } from "./colours.js";
import { agreement } from "./pictures.js";

/** Short names for the corners of windows. @param {import("./types.js").Layer} layer */
export const shortName = (layer) =>
  ({ encoder: `E${layer.level}`, decoder: `D${layer.level}`, bottleneck: "B", output: "out", pixel: "px" })[layer.role];

/** How deep a level lies, 0 to 1. @param {import("./types.js").Model} model */
const depthOf = (model, /** @type {import("./types.js").Layer} */ layer) => layer.level / Math.max(1, ...model.layers.map((one) => one.level));

const lightness = (/** @type {number} */ share) => 0.78 - 0.36 * share;

/** Whether letters on a level's colour are to be dark. @param {import("./types.js").Model} model */
export const levelIsLight = (model, /** @type {import("./types.js").Layer} */ layer) => lightness(depthOf(model, layer)) > 0.59;

/** One colour a level, light at the top, dark at the bottom. @param {import("./types.js").Model} model */
export function levelColour(model, /** @type {import("./types.js").Layer} */ layer) {
  const share = depthOf(model, layer);
  return `oklch(${lightness(share).toFixed(3)} ${(0.13 + 0.07 * share).toFixed(3)} ${(330 - 35 * share).toFixed(0)})`;
}

/** @param {import("./types.js").Hold | undefined} hold */
const shareThrough = (hold) => (hold === undefined || hold === "pass" ? 1 : typeof hold === "number" ? hold : 0);


export class UView {
  /**
   * @param {{path: (name: string, hold: import("./types.js").Hold) => void, layer: (name: string) => void,
   *   point: (at: {x: number, y: number} | null) => void, choose: (at: {x: number, y: number}) => void, regard: (layer: string | null) => void}} says
   */
  constructor(says) {
    this.says = says;
    this.drawing = s("svg", { class: "u-drawing", "aria-hidden": "true" });
    this.parts = h("div", { class: "u-parts" });
    this.wait = h("p", { class: "u-wait", hidden: true });
    this.element = h("section", { class: "u", "aria-label": "The network, drawn as a U" }, this.drawing, this.parts, this.wait);
    /** @type {Map<string, {button: HTMLElement, canvas: HTMLCanvasElement, cell: HTMLElement, bar: HTMLElement, text: HTMLElement}>} */
    this.nodes = new Map();
    /** @type {Map<string, {group: HTMLElement, slider: HTMLInputElement, radios: HTMLInputElement[], value: HTMLElement}>} */
    this.valves = new Map();
    new ResizeObserver(() => this.arrange()).observe(this.element);
  }

  /** @param {import("./types.js").Model} model @param {import("./colours.js").ClassLook[]} looks */
  setModel(model, looks) {
    this.model = model;
    this.looks = looks;
    this.nodes.clear();
    this.valves.clear();
    fill(this.parts, ...model.layers.flatMap((one) => this.makeNode(one)), ...model.paths.map((one) => this.makeValve(one)));
    this.arrange();
  }

  /** @param {import("./types.js").Layer} layer @returns {HTMLElement[]} */
  makeNode(layer) {
    if (layer.role === "pixel" || layer.role === "output") return [];
    const canvas = /** @type {HTMLCanvasElement} */ (h("canvas", { width: 1, height: 1 }));
    const cell = h("i", { class: "cell" });
    const bar = h("span", { class: "reading" });
    const button = h("button", { type: "button", class: "node", "data-layer": layer.name, "aria-pressed": "false",
      onclick: () => this.says.layer(layer.name) }, h("span", { class: "frame" }, canvas, cell), bar);
    const frame = /** @type {HTMLElement} */ (button.firstChild);
    frame.addEventListener("pointermove", (event) => this.says.point(this.pixelAt(frame, event)));
    frame.addEventListener("pointerleave", () => this.says.point(null));
    frame.addEventListener("click", (event) => { if (event.detail) this.says.choose(this.pixelAt(frame, event)); });
    button.addEventListener("pointerenter", () => this.says.regard(layer.name));
    button.addEventListener("pointerleave", () => this.says.regard(null));
    button.style.setProperty("--level", levelColour(/** @type {any} */ (this.model), layer));
    const text = h("p", { class: "about" }, h("b", { text: capital(layer.title) }), h("span", { class: "grid" }),
      h("span", { text: layer.field ? `sees ${layer.field[1]} × ${layer.field[0]} px` : "sees everything" }));
    this.nodes.set(layer.name, { button, canvas, cell, bar, text });
    return [button, text];
  }

  /** @param {HTMLElement} frame @param {MouseEvent} event */
  pixelAt(frame, event) {
    const box = frame.getBoundingClientRect();
    const [width, height] = this.size ?? [1, 1];
    const at = (/** @type {number} */ share, /** @type {number} */ most) => Math.max(0, Math.min(most - 1, Math.floor(share * most)));
    return { x: at((event.clientX - box.left) / box.width, width), y: at((event.clientY - box.top) / box.height, height) };
  }

  /** @param {import("./types.js").Path} path */
  makeValve(path) {
    const group = h("fieldset", { class: `valve ${path.kind}`, "data-path": path.name });
    const name = capital(path.title);
    const told = `${this.slot ?? ""}${path.name}`;
    const slider = /** @type {HTMLInputElement} */ (h("input", { type: "range", min: 0, max: 1, step: 0.05, value: 1,
      "aria-label": `How much of ${path.title} goes through`,
      oninput: () => this.says.path(path.name, Number(slider.value) === 1 ? "pass" : Number(slider.value)) }));
    const radios = [["pass", "everything goes through"], ["mean", "every unit gets its mean over up to 8 of the images that lie here"], ["cut", "zeros instead"]]
      .map(([hold, means]) => /** @type {HTMLInputElement} */ (h("input", { type: "radio", name: told, value: hold,
        title: means, onchange: () => this.says.path(path.name, /** @type {any} */ (hold)) })));
    const value = h("output", { class: "through" });
    group.append(h("legend", { text: name }), h("div", { class: "choices" }, h("span", { class: "name", text: name, "aria-hidden": "true" }),
      ...radios.map((radio) => h("label", { title: radio.title }, radio, h("span", { text: radio.value })))),
      h("div", { class: "line" }, slider), value);
    this.valves.set(path.name, { group, slider, radios, value });
    return group;
  }

  /** Names of radio groups must differ between two views. @param {string} slot */
  setSlot(slot) { this.slot = slot; }

  arrange() {
    const model = this.model;
    if (!model || !this.element.clientWidth) return;
    const at = layoutU(model, this.element.clientWidth, this.element.clientHeight, parseFloat(getComputedStyle(document.documentElement).fontSize));
    place(this.element, { "--least": at.least, "--drawn-width": String(at.width), "--drawn-height": String(this.element.clientHeight) });
    const [width, height] = this.size ?? [1, 1];
    const scale = at.picture / Math.max(width, height);
    for (const [name, { button, text }] of this.nodes) {
      const spot = at.layers[name];
      place(button, { left: spot.x, top: spot.y, width: at.picture });
      place(/** @type {HTMLElement} */ (button.firstChild), { width: Math.max(1, width * scale), height: Math.max(1, height * scale) });
      text.dataset.side = spot.side;
      place(text, { top: spot.y, left: spot.side === "left" ? spot.x + at.picture + at.gap : 0 });
      place(text, { right: spot.side === "left" ? "auto" : at.width - spot.x + at.gap });
      text.style.left = spot.side === "left" ? text.style.left : "auto";
    }
    for (const line of [...at.skips, ...(at.bottleneck ? [at.bottleneck] : [])]) {
      const valve = this.valves.get(line.path.name);
      if (valve) place(valve.group, { left: line.x0, width: line.x1 - line.x0, top: line.y - 34 });
    }
    this.drawBand(at);
  }

  /** @param {import("./u-layout.js").Layout} at */
  drawBand(at) {
    this.drawing.setAttribute("viewBox", `0 0 ${at.width} ${at.height}`);
    const middle = 4 + at.picture / 2; // of the top row
    const chevrons = at.steps.map(({ x, y, down }) =>
      s("path", { class: "step", d: down ? `M${x - 7} ${y - 3}l7 6 7-6` : `M${x - 7} ${y + 3}l7-6 7 6` }));
    const missing = at.rows.filter((level) => !at.skips.some((line) => line.path.level === level)).map((level) => {
      const y = at.tops[at.rows.indexOf(level)] + at.picture / 2;
      return s("text", { class: "none", x: at.width / 2, y, "text-anchor": "middle" }, "no skip at this level");
    });
    fill(this.drawing,
      s("path", { class: "band", d: at.band, "stroke-width": at.bandWidth }),
      s("path", { class: "flow", d: at.band, "stroke-width": 2 }),
      s("path", { class: "in", d: `M-22 ${middle}h16m-6-6l6 6-6 6` }),
      s("path", { class: "in", d: `M${at.width + 4} ${middle}h16m-6-6l6 6-6 6` }),
      ...chevrons, ...missing);
  }

  /** @param {import("./geometry.js").Windows} windows */
  setWindows(windows) {
    this.windows = windows;
    this.size = [windows.width, windows.height];
    for (const layer of this.model?.layers ?? []) {
      const node = this.nodes.get(layer.name);
      const grid = windows.layers[layer.name]?.grid;
      if (node && grid) fill(/** @type {Element} */ (node.text.querySelector(".grid")), `${grid[1]} × ${grid[0]} · ${layer.channels} ch.`);
      if (node) node.text.title = `stride ${stepOf(layer.stride)}: one unit every ${stepOf(layer.stride)} px; ${layer.channels} features a unit`;
    }
    this.arrange();
  }

  /** What the probes paint; before they are ready, the image at each level's resolution.
   * @param {Map<string, Uint8Array> | null} paintings @param {CanvasImageSource} image @param {Uint8Array | null} answer */
  setPaintings(paintings, image, answer, { patterns = false, hopeless = false } = {}) {
    const [width, height] = this.size ?? [1, 1];
    this.paintings = paintings;
    for (const layer of this.model?.layers ?? []) {
      const node = this.nodes.get(layer.name);
      if (!node || !this.looks) continue;
      const ids = paintings?.get(layer.name);
      const agrees = ids && answer && ids.length === answer.length ? agreement(ids, answer) : null;
      if (ids) paintLabels(node.canvas, ids, width, height, this.looks, { patterns });
      else this.drawCoarse(node.canvas, layer, image);
      node.button.classList.toggle("waits", !ids && !hopeless);
      const paints = agrees === null ? hopeless ? "no probe paints it" : "no probe has painted it yet" : `its probe paints ${percent(agrees)} of the pixels as the network does`;
      node.button.dataset.paints = paints;
      this.nameNode(layer, "");
    }
  }

  /** @param {HTMLCanvasElement} canvas @param {import("./types.js").Layer} layer @param {CanvasImageSource} image */
  drawCoarse(canvas, layer, image) {
    const grid = this.windows?.layers[layer.name]?.grid ?? [1, 1];
    [canvas.height, canvas.width] = grid;
    const context = canvas.getContext("2d");
    if (context) context.imageSmoothingQuality = "high";
    context?.drawImage(image, 0, 0, grid[1], grid[0]);
  }

  /** @param {import("./types.js").Layer} layer @param {string} reads */
  nameNode(layer, reads) {
    const node = this.nodes.get(layer.name);
    const grid = this.windows?.layers[layer.name]?.grid ?? ["?", "?"];
    const sees = layer.field ? `sees ${layer.field[1]} by ${layer.field[0]} pixels` : "sees the whole image";
    node?.button.setAttribute("aria-label", `${capital(layer.title)}: ${grid[1]} by ${grid[0]} units, stride ${stepOf(layer.stride)}, `
      + `${layer.channels} channels, ${sees}; ${node.button.dataset.paints ?? ""}${reads ? `; here it reads ${reads}` : ""}`);
  }

  /** @param {Record<string, number[]> | null} readings by layer, the classes' probabilities */
  setReadings(readings) {
    for (const layer of this.model?.layers ?? []) {
      const node = this.nodes.get(layer.name);
      const chances = readings?.[layer.name];
      if (!node || !this.looks) continue;
      const looks = this.looks;
      node.bar.classList.toggle("empty", !chances);
      fill(node.bar, ...(chances ?? []).map((chance, id) => h("i", { style: { width: `${100 * chance}%`, background: looks[id].color } })));
      if (!chances) { // nor words of the pixel before
        node.bar.title = "";
        this.nameNode(layer, "");
        continue;
      }
      const best = chances.indexOf(Math.max(...chances));
      const told = `${looks[best].name} ${figure(chances[best])}`;
      node.bar.title = `here it reads ${chances.map((c, id) => `${looks[id].name} ${figure(c)}`).join(", ")}`;
      this.nameNode(layer, told);
    }
  }

  /** @param {Record<string, import("./types.js").Hold>} paths */
  setPaths(paths) {
    for (const [name, valve] of this.valves) {
      const hold = paths[name] ?? "pass";
      const through = shareThrough(hold);
      valve.slider.value = String(through);
      valve.slider.setAttribute("aria-valuetext", hold === "cut" ? "cut: zeros" : through === 1 ? "everything passes"
        : through === 0 ? "replaced by its mean" : `${Math.round(100 * through)} percent, the rest its mean`);
      valve.group.style.setProperty("--through", String(through));
      valve.group.dataset.hold = typeof hold === "number" ? (hold === 0 ? "mean" : "fade") : hold;
      for (const radio of valve.radios) radio.checked = radio.value === valve.group.dataset.hold;
      fill(valve.value, typeof hold === "number" && hold > 0 ? `${Math.round(100 * hold)} %` : "");
    }
  }

  /** @param {string} layer */
  setLayer(layer) {
    for (const [name, { button }] of this.nodes) button.setAttribute("aria-pressed", String(name === layer));
  }

  /** Marks on every level the unit that answers for a pixel. @param {number} x @param {number} y */
  setHere(x, y) {
    if (!this.windows || !this.size) return;
    const [width, height] = this.size;
    for (const [name, { cell }] of this.nodes) {
      const box = this.windows.cell(name, x, y);
      cell.hidden = !box;
      if (!box) continue;
      place(cell, { left: `${(100 * box.x0) / width}%`, top: `${(100 * box.y0) / height}%`,
        width: `${(100 * (box.x1 - box.x0)) / width}%`, height: `${(100 * (box.y1 - box.y0)) / height}%` });
    }
  }

  /** In place of the U, when it can't be had. @param {() => void} again */
  fail(again) {
    this.setWait("");
    this.model = undefined;
    this.nodes.clear();
    this.valves.clear();
    fill(this.drawing);
    fill(this.parts, h("p", { class: "failed" }, "The network could not be shown on this image. ", h("button", { type: "button", text: "Try again", onclick: again })));
  }

  /** @param {string} words empty when there is nothing to wait for */
  setWait(words) {
    this.wait.hidden = !words;
    this.wait.textContent = words;
  }
}
