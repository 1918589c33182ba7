/**
 * A picture in which a pixel can be chosen: by pointer, by arrow keys, and brushed. Windows lie over it as frames.
 *
 * Knows pixels and frames; nothing of networks. The frames are drawn in pixels of the screen, so that their lines and
 * letters stay sharp at any zoom.
 */
import { h, s, fill, place, everyFrame } from "./dom.js";

/**
 * @typedef {{box: import("./geometry.js").Box, colour: string, name: string, light?: boolean, strong?: boolean, dashed?: boolean}} Frame
 * @typedef {{x: number, y: number}} Point
 */

export class PicturePanel {
  /**
   * @param {string} name what the picture is
   * @param {{point: (at: Point | null) => void, choose: (at: Point) => void, stroke?: (at: Point, begins: boolean) => boolean,
   *   here: () => Point, act?: () => void}} says
   */
  constructor(name, says) {
    this.says = says;
    this.size = [1, 1];
    this.canvas = /** @type {HTMLCanvasElement} */ (h("canvas", { class: "base", width: 1, height: 1 }));
    this.over = /** @type {HTMLCanvasElement} */ (h("canvas", { class: "over", width: 1, height: 1, hidden: true }));
    this.frames = s("svg", { class: "frames", "aria-hidden": "true" });
    this.surface = h("div", { class: "surface", tabindex: 0, role: "application", "aria-roledescription": "picture with a movable pixel",
      "aria-label": name }, this.canvas, this.over, this.frames);
    this.element = h("div", { class: "picture" }, this.surface);
    this.draw = everyFrame(() => this.drawFrames());
    /** @type {Frame[]} */
    this.shown = [];
    /** @type {Point | null} */
    this.at = null;
    this.stroking = false;
    this.listen();
    new ResizeObserver(() => this.fit()).observe(this.element);
  }

  listen() {
    const { surface, says } = this;
    let brushed = false;
    surface.addEventListener("pointermove", (event) => {
      const at = this.pixelAt(event);
      says.point(at);
      if (this.stroking) says.stroke?.(at, false);
    });
    surface.addEventListener("pointerleave", () => { if (!this.stroking) says.point(null); });
    surface.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.stroking = brushed = says.stroke?.(this.pixelAt(event), true) ?? false;
      if (this.stroking) surface.setPointerCapture(event.pointerId);
    });
    surface.addEventListener("click", (event) => { if (!brushed) says.choose(this.pixelAt(event)); }); // not when a finger scrolls
    const end = () => this.lift();
    surface.addEventListener("pointerup", end);
    surface.addEventListener("pointercancel", end);
    surface.addEventListener("keydown", (event) => this.onKey(event));
  }

  /** Ends a stroke: the brush was lifted, or another image came under it. */
  lift() { this.stroking = false; }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (this.surface.closest('[aria-busy="true"]')) return; // its picture is of the last image
    const far = event.shiftKey ? 10 : 1;
    const moves = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
    const move = moves[/** @type {keyof typeof moves} */ (event.key)];
    if (move && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const from = this.says.here();
      this.says.point(null);
      this.says.choose(this.within(from.x + move[0], from.y + move[1]));
    } else if ((event.key === "Enter" || event.key === " ") && this.says.act) {
      if (!event.repeat) this.says.act(); // a key that is held dabs once
    } else return;
    event.preventDefault();
  }

  /** @param {number} x @param {number} y @returns {Point} */
  within(x, y) {
    const [width, height] = this.size;
    return { x: Math.max(0, Math.min(width - 1, x)), y: Math.max(0, Math.min(height - 1, y)) };
  }

  /** @param {MouseEvent} event */
  pixelAt(event) {
    const box = this.surface.getBoundingClientRect();
    return this.within(Math.floor(((event.clientX - box.left) / box.width) * this.size[0]),
      Math.floor(((event.clientY - box.top) / box.height) * this.size[1]));
  }

  /** @param {number} width @param {number} height of the image */
  setSize(width, height) {
    this.size = [width, height];
    this.fit();
  }

  /** The largest place for the picture in the panel, which itself never changes its size. */
  fit() {
    const [width, height] = this.size;
    const scale = Math.min(this.element.clientWidth / width, this.element.clientHeight / height);
    place(this.surface, { width: Math.max(1, Math.floor(width * scale)), height: Math.max(1, Math.floor(height * scale)), "--own": `${width / height}` });
    this.draw();
  }

  /** Shows nothing. @param {string} words why */
  clear(words) {
    [this.canvas.width, this.canvas.height] = [1, 1];
    this.over.hidden = true;
    this.show([], null);
    this.describe(words);
  }

  /** @param {string} words */
  describe(words) { this.surface.setAttribute("aria-label", words); }

  /** @param {Frame[]} frames @param {Point | null} at */
  show(frames, at) {
    this.shown = frames;
    this.at = at;
    this.draw();
  }

  drawFrames() {
    const [width, height] = this.size;
    const [w, t] = [this.surface.clientWidth, this.surface.clientHeight];
    const scale = w / width;
    this.frames.setAttribute("viewBox", `0 0 ${w} ${t}`);
    /** @type {{x: number, y: number, w: number}[]} */
    const tags = [];
    const ordered = [...this.shown].sort((a, b) => area(b.box) - area(a.box));
    const boxes = ordered.map((one) => frame(one, scale, w, t));
    const named = [...this.shown].sort((a, b) => Number(b.strong ?? 0) - Number(a.strong ?? 0) || area(b.box) - area(a.box))
      .flatMap((one) => tag(one, scale, tags, w));
    const cross = this.at && this.at.x >= 0 ? pixelMark(this.at, scale, height * scale) : [];
    fill(this.frames, ...boxes, ...named, ...cross);
  }
}

const area = (/** @type {import("./geometry.js").Box} */ box) => (box.x1 - box.x0) * (box.y1 - box.y0);

/** A frame with a light rim, so that it shows on any picture. @param {Frame} one */
function frame(one, /** @type {number} */ scale, /** @type {number} */ w, /** @type {number} */ t) {
  const half = one.strong ? 1.5 : 1;
  const x = Math.max(half, one.box.x0 * scale), y = Math.max(half, one.box.y0 * scale);
  const at = { x, y, width: Math.max(1, Math.min(w - half, one.box.x1 * scale) - x), height: Math.max(1, Math.min(t - half, one.box.y1 * scale) - y) };
  const kind = `${one.strong ? " strong" : ""}${one.dashed ? " dashed" : ""}`;
  return s("g", { class: `window${kind}`, "data-name": one.name },
    s("rect", { ...at, class: "rim" }), s("rect", { ...at, class: "edge", style: { stroke: one.colour } }));
}

/** The name at a corner of a frame, unless another one is there. @param {Frame} one @param {{x: number, y: number, w: number}[]} taken */
function tag(one, /** @type {number} */ scale, taken, /** @type {number} */ w) {
  if (!one.name) return [];
  const wide = 9 + 7 * one.name.length, tall = 15;
  if ((one.box.x1 - one.box.x0) * scale < wide + 4) return [];
  const x = Math.min(one.box.x0 * scale, w - wide), y = one.box.y0 * scale;
  if (taken.some((other) => Math.abs(other.y - y) < tall && x < other.x + other.w + 1 && other.x < x + wide + 1)) return [];
  taken.push({ x, y, w: wide });
  return [s("g", { class: `tag${one.light ? " light" : ""}${one.strong ? " strong" : ""}` }, s("rect", { x, y, width: wide, height: tall, style: { fill: one.colour } }),
    s("text", { x: x + wide / 2, y: y + 11.5, "text-anchor": "middle" }, one.name))];
}

/** The pixel: a ring that shows on anything. @param {Point} at */
function pixelMark(at, /** @type {number} */ scale, /** @type {number} */ tall) {
  const [x, y] = [(at.x + 0.5) * scale, Math.min(tall, (at.y + 0.5) * scale)];
  const radius = Math.max(4, scale / 2 + 2);
  return [s("circle", { cx: x, cy: y, r: radius + 1.5, class: "mark-rim" }), s("circle", { cx: x, cy: y, r: radius, class: "mark" })];
}
