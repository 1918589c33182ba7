/** The brush: hide or alter parts of the image, and so feel how far the network sees. */
import { h, fill } from "./dom.js";
import { LARGEST_RADIUS, MOST_EDITS } from "./state.js";

const TOOLS = [
  ["point", "Point", "choose the pixel that is looked at"], ["grey", "Grey", "hide what is under the brush"],
  ["blur", "Blur", "take the fine shapes away, keep the colours"], ["paste", "Paste", "copy a round patch from elsewhere"],
];

export class Brush {
  /** @param {import("./state.js").Store} store @param {{told: (words: string) => void}} says */
  constructor(store, says) {
    this.store = store;
    this.says = says;
    /** @type {{x: number, y: number} | null} where the patch to paste is taken from */
    this.source = null;
    this.radios = TOOLS.map(([tool, , means]) => /** @type {HTMLInputElement} */ (h("input", { type: "radio", name: "tool", value: tool, title: means,
      onchange: () => this.take(tool) })));
    this.slider = /** @type {HTMLInputElement} */ (h("input", { type: "range", min: 1, max: LARGEST_RADIUS, step: 1, "aria-label": "Radius of the brush in pixels",
      oninput: () => store.set({ radius: Number(this.slider.value) }) }));
    this.size = h("output", { class: "radius" });
    this.undo = /** @type {HTMLButtonElement} */ (h("button", { type: "button", text: "Undo", "aria-keyshortcuts": "Control+Z", onclick: () => this.takeBack() }));
    this.clear = /** @type {HTMLButtonElement} */ (h("button", { type: "button", text: "Clear", onclick: () => store.set({ edits: [] }) }));
    this.hint = h("span", { class: "hint quiet", role: "status" });
    this.element = h("div", { class: "brush" },
      h("fieldset", { class: "choices tools" }, h("legend", { class: "hidden-name", text: "What the pointer does" }),
        ...TOOLS.map(([, name, means], at) => h("label", { title: means }, this.radios[at], h("span", { text: name })))),
      h("label", { class: "size" }, h("span", { text: "size" }), this.slider, this.size), this.undo, this.clear, this.hint);
    store.watch((changed) => {
      if (changed.has("image")) this.source = null; // a place on the last one
      if (changed.has("tool") || changed.has("radius") || changed.has("edits") || changed.has("image")) this.show();
    });
    this.show();
  }

  /** @param {string} tool */
  take(tool) {
    this.source = null;
    this.store.set({ tool: /** @type {any} */ (tool) });
  }

  next() {
    const at = TOOLS.findIndex(([tool]) => tool === this.store.state.tool);
    this.take(TOOLS[(at + 1) % TOOLS.length][0]);
  }

  show() {
    const { tool, radius, edits } = this.store.state;
    for (const radio of this.radios) radio.checked = radio.value === tool;
    this.slider.value = String(radius);
    this.slider.disabled = tool === "point";
    fill(this.size, `${2 * radius + 1} px`);
    const { activeElement } = document;
    if (!edits.length && (activeElement === this.undo || activeElement === this.clear)) this.radios.find((radio) => radio.checked)?.focus(); // else the focus is lost
    this.undo.disabled = this.clear.disabled = edits.length === 0;
    const places = edits.length === 1 ? "1 dab" : `${edits.length} dabs`;
    const paste = this.source ? "now brush where to paste" : "press where to copy from";
    fill(this.hint, tool === "paste" ? paste : edits.length ? places : tool === "point" ? "" : "brush over the image");
  }

  takeBack() { this.store.set({ edits: this.store.state.edits.slice(0, -1) }); }

  /** What a picture needs to be brushed on. */
  hands() {
    return {
      stroke: (/** @type {{x: number, y: number}} */ at, /** @type {boolean} */ begins) => this.stroke(at, begins),
      act: () => { const { x, y } = this.store.state; this.stroke({ x, y }, true); },
    };
  }

  /** @param {{x: number, y: number}} at @param {boolean} begins @returns {boolean} whether this was for the brush */
  stroke(at, begins) {
    const { tool, radius, edits } = this.store.state;
    if (tool === "point" || at.x < 0) return false; // the pixel of an image that is still awaited is none
    if (tool === "paste" && !this.source) {
      this.source = at;
      this.show();
      return false;
    }
    const last = edits.at(-1);
    // dabs overlap enough to look like a stroke, and no more
    if (!begins && last && Math.hypot(last.x - at.x, last.y - at.y) < Math.max(1, 0.6 * radius)) return true;
    if (edits.length >= MOST_EDITS) {
      this.says.told(`${MOST_EDITS} dabs are the most; undo some or clear them.`);
      return true;
    }
    const from = tool === "paste" && this.source ? { from: /** @type {[number, number]} */ ([this.source.x, this.source.y]) } : {};
    this.store.set({ edits: [...edits, { kind: tool, x: at.x, y: at.y, radius, ...from }] });
    return true;
  }
}

/** Roughly what the server will answer, at once. @param {CanvasRenderingContext2D} context @param {import("./types.js").Edit} edit */
export function previewEdit(context, edit) {
  const { x, y, radius, kind, from } = edit;
  const side = 2 * radius + 1;
  const copy = new OffscreenCanvas(side, side);
  const [cx, cy] = kind === "paste" && from ? from : [x, y];
  copy.getContext("2d")?.drawImage(context.canvas, cx - radius, cy - radius, side, side, 0, 0, side, side);
  context.save();
  context.beginPath();
  context.arc(x + 0.5, y + 0.5, radius + 0.5, 0, 2 * Math.PI);
  context.clip();
  if (kind === "grey") {
    context.fillStyle = "rgb(128 128 128)";
    context.fillRect(x - radius, y - radius, side, side);
  } else {
    if (kind === "blur") context.filter = `blur(${Math.max(1, radius / 3)}px)`;
    context.drawImage(copy, x - radius, y - radius);
  }
  context.restore();
}
