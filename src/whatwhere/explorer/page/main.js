/** Puts the page together: asks what there is, builds the views, and keeps the address. Computes nothing itself. */
import { h, fill, find, afterPause } from "./dom.js";
import { ask, hold, whenHeard, ApiError } from "./api.js";
import { LARGEST_RADIUS, MOST_EDITS, Store, START, fromAddress, strokesOn, toAddress } from "./state.js";
import { NetworkView } from "./network-view.js";
import { Brush } from "./brush.js";
import { Chooser } from "./chooser.js";
import { Closer } from "./closer.js";
import { Guide } from "./guide.js";
import { TOURS } from "./tours.js";
import { followTheme } from "./theme.js";
import { keepNumbers, keepPicture } from "./keep.js";
import { listen } from "./shortcuts.js";
import { pixelSentence, windowsSentence, changeSentence, speak } from "./speech.js";
import { heardAgain, stand, trouble, word } from "./notices.js";

class Page {
  /** @param {import("./types.js").Session} session */
  constructor(session) {
    this.session = session;
    this.store = new Store({ ...START, ...this.possible(fromAddress(location.hash)) });
    const told = (/** @type {string} */ words) => { speak(words); word(words); };
    this.told = told;
    this.brush = new Brush(this.store, { told });
    this.chooser = new Chooser(this.store, session, { trouble, told });
    this.closer = new Closer({ layer: (layer) => this.store.set({ layer }), trouble });
    this.views = /** @type {NetworkView[]} */ ([]);
    this.addView(0);
    this.guide = new Guide(this.store, () => this.views[0].seen);
    find("#strip").prepend(this.brush.element);
    find("#below").append(this.closer.element);
    this.wire();
    this.store.watch((changed) => this.react(changed));
    addEventListener("hashchange", (event) => {
      const { hash } = new URL(event.newURL); // not location's: by now the address of an earlier change may be written there
      if (!/(^#|&)(model|image)=/.test(hash)) return; // not an address of this page
      if (hash.slice(1) !== this.address) {
        this.guide.given();
        this.store.set({ ...START, ...this.possible(fromAddress(hash)) });
        this.writeAddress(); // without what is not here
      }
    });
    // one shape of panel for all images that are here, so that nothing jumps from one to the next
    const tallest = Math.min(...session.images.map((one) => one.width / one.height));
    document.body.style.setProperty("--aspect", String(Math.max(0.8, Math.min(1.6, session.images.length ? tallest : 1))));
    this.compare();
    this.load();
    this.writeAddress();
  }

  /** Ids for the names that an address holds: of what is here (still).
   * @param {Partial<import("./state.js").State>} said */
  possible(said) {
    const { models, images } = this.session;
    const model = models.find((one) => one.name === said.model);
    const other = models.find((one) => one.name === said.other);
    const image = images.find((one) => one.name === said.image);
    const tour = TOURS.find((one) => one.id === said.tour);
    const gone = [said.model && !model && `model ${said.model}`, said.other && !other && `model ${said.other}`, said.image && !image && `image ${said.image}`, said.tour && !tour && `tour ${said.tour}`].filter(Boolean);
    if (gone.length) {
      trouble(new ApiError(404, { given: `the address names ${gone.join(" and ")}`, expected: "models, images and tours that are here",
        remedy: "start whatwhere explore with the same files, or choose at the top; images that were dropped in are not kept" }));
    }
    const fits = image || !said.image ? {} : { x: -1, y: -1, edits: [] };
    const found = { ...said, ...fits, model: (model ?? models[0]).id, other: other?.id ?? null, image: (image ?? images[0])?.id ?? null,
      tour: tour?.id ?? null, step: Math.min(said.step ?? 0, (tour?.steps.length ?? 1) - 1) };
    const look = found.look === "truth" && !(image ?? images[0])?.truth ? { look: /** @type {const} */ ("painting") } : {};
    return { ...found, ...look, edits: this.inside(found.edits ?? [], image ?? images[0]) };
  }

  /** The strokes that can be made on the image: a smaller one may have its name by now.
   * @param {import("./types.js").Edit[]} edits @param {import("./types.js").ImageRecord | undefined} image */
  inside(edits, image) {
    const on = image ? strokesOn(edits, image) : [];
    if (image && on.length < edits.length) {
      trouble(new ApiError(422, { given: `the address brushes the image ${image.name} as it can't be brushed: in ${edits.length - on.length} of ${edits.length} places`,
        expected: `at most ${MOST_EDITS} places on its ${image.width} × ${image.height} pixels, of a radius of at most ${LARGEST_RADIUS} px`,
        remedy: "these are left out; brush again where you like" }));
    }
    return on;
  }

  /** What is seen, without the `#`. It holds names: on another start the same id is of another model or image. */
  get address() {
    const { models, images } = this.session;
    const { model, other, image } = this.store.state;
    const name = (/** @type {{id: string, name: string}[]} */ among, /** @type {string | null} */ id) => among.find((one) => one.id === id)?.name ?? null;
    return toAddress({ ...this.store.state, model: name(models, model) ?? "", other: name(models, other), image: name(images, image) });
  }

  /** @param {0 | 1} slot */
  addView(slot) {
    const view = new NetworkView(this.store, slot, { trouble, brush: this.brush,
      seen: () => this.onSeen(), told: () => { this.guide.tell(); this.say(); } });
    this.views[slot] = view;
    find("#views").append(view.element);
  }

  get image() { return this.session.images.find((one) => one.id === this.store.state.image) ?? null; }

  load() {
    find("#empty").hidden = this.image !== null;
    find("#views").hidden = find("#below").hidden = this.image === null;
    this.guide.allow(this.image !== null);
    for (const view of this.views) view.load(this.image);
  }

  onSeen() {
    this.showCloser();
    this.guide.follow();
    this.guide.show();
    this.say();
  }

  showCloser() {
    const seen = this.views[0].seen;
    if (!seen) {
      this.closer.clear();
      return;
    }
    const { layer } = this.store.state;
    const known = seen.model.layers.some((one) => one.name === layer);
    if (known) this.closer.show(seen, layer);
    else this.store.set({ layer: START.layer });
  }

  say() {
    const { x, y } = this.store.state;
    const words = this.views.filter((view) => view.seen && view.modelId && x >= 0 && x < view.seen.width && y < view.seen.height).map((view, _, all) => {
      const seen = /** @type {import("./seen.js").Seen} */ (view.seen);
      return [all.length > 1 ? `${seen.model.name}:` : "", pixelSentence(seen, { x, y }), changeSentence(seen), windowsSentence(seen, { x, y })].filter(Boolean).join(" ");
    });
    speak(words.join(" "));
  }

  /** @param {Set<string>} changed */
  react(changed) {
    this.writeAddress();
    if (changed.has("other")) this.compare();
    if (changed.has("image")) this.load();
    else {
      if (changed.has("model")) this.views[0].load(this.image);
      if (changed.has("other")) this.views[1]?.load(this.image);
    }
    if (changed.has("layer")) this.showCloser();
    if (changed.has("evidence") || changed.has("patterns")) this.showToggles();
    if (changed.has("x") || changed.has("y")) this.say();
  }

  writeAddress = afterPause(120, () => history.replaceState(null, "", `#${this.address}`));

  compare() {
    const two = this.store.state.other !== null;
    document.body.classList.toggle("comparing", two);
    if (two && !this.views[1]) this.addView(1);
    if (this.views[1]) this.views[1].element.hidden = !two;
  }

  showToggles() {
    find("#evidence").setAttribute("aria-pressed", String(this.store.state.evidence));
    find("#patterns").setAttribute("aria-pressed", String(this.store.state.patterns));
  }

  wire() {
    const { store } = this;
    const on = (/** @type {string} */ id, /** @type {() => void} */ act) => find(id).addEventListener("click", act);
    const look = (/** @type {any} */ name) => store.set({ look: store.state.look === name ? "painting" : name });
    const focus = (/** @type {string} */ side) => find(`.network[data-slot="0"] .${side} .surface`).focus();
    const title = () => `whatwhere ${this.views[0].seen?.image.name ?? "nothing"} ${store.state.x},${store.state.y}`.replace(/[^\w., -]/g, "_");
    const seen = () => this.views.filter((view) => view.seen && view.modelId);
    const evidence = () => store.set({ evidence: !store.state.evidence });
    const patterns = () => store.set({ patterns: !store.state.patterns });
    const whole = () => store.set({ paths: {}, otherPaths: {} });
    const help = () => /** @type {HTMLDialogElement} */ (find("#help")).showModal();
    const truth = () => { if (this.image?.truth) look("truth"); else this.told?.("There is no mask for this image."); };
    find(".skip-link").addEventListener("click", (event) => { event.preventDefault(); find("#stage").focus(); });
    on("#evidence", evidence);
    on("#patterns", patterns);
    on("#whole", whole);
    on("#help-button", help);
    on("#help-close", () => /** @type {HTMLDialogElement} */ (find("#help")).close());
    const keep = (/** @type {(views: NetworkView[]) => void} */ act) => { if (seen().length) act(seen()); };
    on("#keep-picture", () => keep((views) => { keepPicture(views, title()).catch(trouble); }));
    on("#keep-numbers", () => keep((views) => keepNumbers(views, store.state, this.session.version, title())));
    on("#copy", () => this.copyAddress());
    const shortcuts = [
      { key: "I", does: "go to the image", act: () => focus("image-side") }, { key: "O", does: "go to the painting", act: () => focus("painting-side") },
      { key: "B", does: "next brush", act: () => this.brush.next() }, { key: "U", does: "take the last dab back (also Ctrl Z)", act: () => this.brush.takeBack() },
      { key: "E", does: "evidence over the image", act: evidence }, { key: "D", does: "difference picture", act: () => look("difference") },
      { key: "M", does: "mask", act: truth }, { key: "P", does: "patterns for classes", act: patterns },
      { key: "W", does: "let every path pass", act: whole }, { key: "[", does: "image before", act: () => this.chooser.step(-1) },
      { key: "]", does: "next image", act: () => this.chooser.step(1) }, { key: "Escape", does: "leave a tour", act: () => this.guide.leave() },
      { key: "?", does: "this list", act: help },
    ];
    listen(shortcuts);
    fill(find("#keys"), h("dt", {}, h("kbd", { text: "arrows" })), h("dd", { text: "move the pixel on the image or painting; with Shift by ten" }),
      h("dt", {}, h("kbd", { text: "Enter" })), h("dd", { text: "dab with the brush at the pixel" }),
      ...shortcuts.flatMap((one) => [h("dt", {}, h("kbd", { text: one.key })), h("dd", { text: one.does })]));
    this.showToggles();
  }

  async copyAddress() {
    history.replaceState(null, "", `#${this.address}`);
    try {
      await navigator.clipboard.writeText(location.href);
      find("#copied").textContent = "copied";
    } catch {
      find("#copied").textContent = "copy it from the address line"; // the browser may refuse the clipboard
    }
    setTimeout(() => { find("#copied").textContent = ""; }, 2500);
  }
}

async function open() {
  followTheme();
  whenHeard(heardAgain);
  // a token is in the cookie by now; the address is there to be passed on
  if (location.search) history.replaceState(null, "", location.pathname + location.hash);
  document.body.classList.add("opening");
  find("#instead").hidden = true;
  find("#stage").hidden = false;
  try {
    const session = await ask("/api/session");
    hold(session.key);
    if (session.models.length) new Page(session);
    else stand("No model is open", { given: "the explorer was started without a model", expected: "a run folder or a .safetensors file",
      remedy: "whatwhere explore RUN IMAGES" }, null);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    stand("The explorer can't be reached", error, open);
  } finally {
    document.body.classList.remove("opening");
  }
}

open();
