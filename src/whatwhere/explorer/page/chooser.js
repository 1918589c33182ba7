/** The head of the page: which model, which other to compare it with, which image; and taking in new images. */
import { h, fill, find } from "./dom.js";
import { ask, addressed, ApiError } from "./api.js";
import { factsOf } from "./pictures.js";

export class Chooser {
  /** @param {import("./state.js").Store} store @param {import("./types.js").Session} session @param {{trouble: (error: unknown) => void, told: (words: string) => void}} says */
  constructor(store, session, says) {
    this.store = store;
    this.session = session;
    this.says = says;
    this.model = /** @type {HTMLSelectElement} */ (find("#model"));
    this.other = /** @type {HTMLSelectElement} */ (find("#other"));
    this.strip = find("#images");
    const options = () => session.models.map((one) => h("option", { value: one.id, text: one.name, title: one.title }));
    fill(this.model, ...options());
    fill(this.other, h("option", { value: "", text: "nothing" }), ...options());
    this.model.addEventListener("change", () => store.set({ model: this.model.value, paths: {} }));
    this.other.addEventListener("change", () => store.set({ other: this.other.value || null, otherPaths: {} }));
    store.watch((changed) => { if (changed.has("model") || changed.has("other") || changed.has("image")) this.show(); });
    this.takeFiles();
    this.drawStrip();
    this.show();
  }

  drawStrip() {
    fill(this.strip, ...this.session.images.map((one) => {
      const radio = h("input", { type: "radio", name: "image", value: one.id, onchange: () => this.choose(one.id) });
      return h("label", { class: "thumb", title: `${one.name} (${factsOf(one)}${one.truth ? " · with mask" : ""})` }, radio,
        h("img", { src: addressed(one.thumb), alt: one.name, loading: "lazy", width: 44, height: 44 }));
    }));
  }

  /** Another image: what was brushed on the last one goes. @param {string} image */
  choose(image) {
    const masked = this.session.images.find((one) => one.id === image)?.truth;
    const look = this.store.state.look === "truth" && !masked ? { look: /** @type {const} */ ("painting") } : {};
    this.store.set({ image, edits: [], x: -1, y: -1, evidence: false, ...look });
  }

  show() {
    const { model, other, image } = this.store.state;
    this.model.value = model;
    this.other.value = other ?? "";
    for (const [select, id] of /** @type {const} */ ([[this.model, model], [this.other, other]])) {
      const one = this.session.models.find((known) => known.id === id);
      select.title = one ? [one.name, one.title !== one.name && one.title, `${one.parameters.toLocaleString("en")} parameters`].filter(Boolean).join("; ") : "";
    }
    for (const radio of this.strip.querySelectorAll("input")) {
      radio.checked = radio.value === image;
      if (radio.checked) keepInSight(this.strip, /** @type {HTMLElement} */ (radio.parentElement));
    }
  }

  /** @param {1 | -1} by */
  step(by) {
    const { images } = this.session;
    const at = images.findIndex((one) => one.id === this.store.state.image);
    if (images.length) this.choose(images[(at + by + images.length) % images.length].id);
  }

  takeFiles() {
    const input = /** @type {HTMLInputElement} */ (find("#file"));
    input.addEventListener("change", () => { this.takeIn([...(input.files ?? [])]); input.value = ""; });
    const veil = find("#drop");
    let depth = 0;
    const isFile = (/** @type {DragEvent} */ event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    addEventListener("dragenter", (event) => { if (isFile(event)) { depth++; veil.hidden = false; } });
    addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); veil.hidden = depth === 0; });
    addEventListener("dragover", (event) => { if (isFile(event)) event.preventDefault(); });
    addEventListener("drop", (event) => {
      depth = 0;
      veil.hidden = true;
      const files = [...(event.dataTransfer?.files ?? [])];
      if (!files.length) return;
      event.preventDefault();
      this.takeIn(files);
    });
  }

  /** One after the other; the last one is looked at. @param {File[]} files */
  async takeIn(files) { for (const file of files) await this.upload(file); }

  /** @param {File} file */
  async upload(file) {
    const { image, edits } = this.store.state;
    const most = this.session.limits.upload_bytes;
    try {
      if (file.size > most) {
        const megabytes = (/** @type {number} */ bytes) => `${(bytes / 2 ** 20).toFixed(1)} MB`;
        throw new ApiError(413, { given: `${file.name} has ${megabytes(file.size)}`, expected: `at most ${megabytes(most)}`,
          remedy: "make it smaller, or give its path to whatwhere explore" });
      }
      this.says.told(`taking in ${file.name} …`);
      await readable(file);
      const { gone, ...record } = await ask(`/api/images?name=${encodeURIComponent(file.name)}`, { bytes: file });
      this.session.images = [...this.session.images.filter((one) => !gone.includes(one.id)), record];
      this.drawStrip();
      const still = this.store.state;
      if ((still.image === image && still.edits === edits) || gone.includes(still.image)) this.choose(record.id); // else something else is looked at by now
      else this.show();
      this.says.told(`${file.name}: ${record.width} by ${record.height} pixels${record.whole ? `, the middle of ${record.whole.width} by ${record.whole.height}` : ""}.${gone.length ? " An image that was added earlier had to make room." : ""}`);
    } catch (error) {
      this.says.trouble(error);
    }
  }
}

/** Else a file that is gone by now, or a folder, looked as if the explorer did not answer. @param {File} file */
async function readable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new ApiError(0, { given: `${file.name} can't be read`, expected: "a file that is there, not a folder",
      remedy: "choose it once more; a folder, as of Zarr, is given to whatwhere explore" });
  }
}

/** Scrolls the strip only, never the page. @param {HTMLElement} strip @param {HTMLElement} thumb */
function keepInSight(strip, thumb) {
  const left = thumb.offsetLeft; // in the strip
  if (left < strip.scrollLeft || left + thumb.offsetWidth > strip.scrollLeft + strip.clientWidth) strip.scrollLeft = left - strip.clientWidth / 2;
}
