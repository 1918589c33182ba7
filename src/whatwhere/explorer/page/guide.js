/** Walks a visitor through a tour: says the step's words, sets its controls, and shows where to look. */
import { h, fill, find, withOptions } from "./dom.js";
import { START, sameEdits, samePaths } from "./state.js";
import { TOURS } from "./tours.js";

const AWAITED = "…", TURNED = "The valves or the brush are no longer as this step sets them.";

/**
 * @typedef {Object} Promised  what a step sets on a model and an image
 * @property {string} of
 * @property {Partial<import("./state.js").State>} set
 * @property {boolean} told  whether its words tell of valves or dabs: the step before set others
 */

export class Guide {
  /** @param {import("./state.js").Store} store @param {() => import("./seen.js").Seen | null} look what the first view sees */
  constructor(store, look) {
    this.store = store;
    this.look = look;
    this.element = find("#ask");
    this.words = h("p", { class: "tour-words" });
    this.count = h("span", { class: "tour-count" });
    this.name = h("h2", { class: "tour-name" });
    this.back = /** @type {HTMLButtonElement} */ (h("button", { type: "button", text: "Back", onclick: () => this.go(-1) }));
    this.again = h("button", { type: "button", text: "Set again", hidden: true, onclick: () => this.setAgain() });
    this.next = /** @type {HTMLButtonElement} */ (h("button", { type: "button", class: "primary", text: "Next", onclick: () => this.go(1) }));
    this.live = h("div", { class: "tour-live", "aria-live": "polite" }, this.words);
    this.card = h("div", { class: "tour", role: "region", "aria-label": "Tour" }, h("div", { class: "tour-head" }, this.name, this.count),
      this.live,
      h("div", { class: "tour-buttons" }, this.again, this.back, this.next, h("button", { type: "button", class: "leave", text: "Leave", "aria-keyshortcuts": "Escape", onclick: () => this.leave() })));
    this.questions = h("div", { class: "questions", role: "group", "aria-label": "Ask: five short tours" },
      h("span", { class: "ask-name", "aria-hidden": "true", text: "Ask" }),
      ...TOURS.map((tour) => h("button", { type: "button", class: "question", "data-tour": tour.id, text: tour.question, onclick: () => this.begin(tour.id) })));
    fill(this.element, this.questions, this.card);
    /** The model and image that the step's controls were set for; null where an address set them. */
    this.setFor = /** @type {string | null} */ (null);
    /** The step that begins when what is chosen is there. */
    this.wanted = /** @type {{id: string, step: number} | null} */ (null);
    this.promised = /** @type {Promised | null} */ (null);
    store.watch((changed) => {
      if (changed.has("tour") || changed.has("step")) this.show();
      else if (["paths", "edits", "x", "y"].some((name) => changed.has(name))) this.tell();
    });
    this.show();
  }

  /** Without an image there is nothing to be shown. @param {boolean} able */
  allow(able) {
    for (const button of this.questions.querySelectorAll("button")) {
      button.disabled = !able;
      button.title = able ? "" : "add an image first";
    }
  }

  get tour() { return TOURS.find((one) => one.id === this.store.state.tour) ?? null; }

  /** @param {string} id */
  begin(id) {
    this.enter(id, 0);
    if (this.tour) this.next.focus({ preventScroll: true });
  }

  /** @param {number} by */
  go(by) {
    const tour = this.tour;
    if (!tour) return;
    const step = this.store.state.step + by;
    if (step >= tour.steps.length) this.leave();
    else if (step >= 0) this.enter(tour.id, step);
  }

  /** What the first view sees, where that is what is chosen: while another image or model loads, nothing. */
  get current() {
    const seen = this.look(), { image, model } = this.store.state;
    return seen && seen.image.id === image && seen.model.id === model ? seen : null;
  }

  /** @param {string} id @param {number} step */
  enter(id, step) {
    const seen = this.current;
    const tour = TOURS.find((one) => one.id === id);
    if (!tour) return;
    this.wanted = seen ? null : { id, step };
    if (!seen) return;
    this.setFor = pairOf(seen);
    this.promised = this.promise(tour, step, seen);
    this.store.set({ ...this.promised.set, tour: id, step });
  }

  setAgain() {
    const { tour, step } = this.store.state;
    if (tour) this.enter(tour, step);
    this.next.focus({ preventScroll: true }); // the button itself has gone
  }

  /** @param {import("./tours.js").Tour} tour @param {number} step @param {import("./seen.js").Seen} seen
   * @param {{x: number, y: number} | null} at  the pixel that an address chose for it @returns {Promised} */
  promise(tour, step, seen, at = null) {
    const scene = { seen, store: this.store };
    const { around } = tour.steps[step];
    const set = { ...tour.steps[step].set(scene), ...(at && around ? { x: at.x, y: at.y, edits: around(scene, at) } : {}) };
    const { paths = {}, edits = [] } = step > 0 ? tour.steps[step - 1].set(scene) : START;
    const told = !samePaths(set.paths ?? {}, paths) || !sameEdits(set.edits ?? [], edits);
    return { of: `${tour.id} ${step} ${pairOf(seen)}`, set, told };
  }

  /** What the step set when it was entered; of one that an address shows, what it would set there.
   * @param {import("./tours.js").Tour} tour @param {number} step @param {import("./seen.js").Seen} seen */
  promiseOf(tour, step, seen) {
    const kept = this.promised;
    const still = kept?.of === `${tour.id} ${step} ${pairOf(seen)}`;
    return (this.promised = kept && still ? kept : this.promise(tour, step, seen, this.store.state));
  }

  /** Whether valves and brush are as they were set. @param {Promised} promised */
  holds({ set }) {
    const { paths, edits, x, y } = this.store.state;
    const own = set.edits ?? [];
    const dabs = set.tool === "point" ? edits : edits.slice(0, own.length); // who is given a brush may go on
    const elsewhere = own.length > 0 && set.x !== undefined && (set.x !== x || set.y !== y);
    return samePaths(paths, set.paths ?? {}) && sameEdits(dabs, own) && !elsewhere;
  }

  /** Another image or model is there: a step's controls are set anew, as its words tell of them. */
  follow() {
    const seen = this.current, { tour, step } = this.store.state;
    if (!seen) return;
    if (this.wanted) {
      const { activeElement } = document;
      this.enter(this.wanted.id, this.wanted.step);
      if (activeElement === document.body || this.questions.contains(activeElement)) this.next.focus({ preventScroll: true });
    } else if (tour && this.setFor !== null && this.setFor !== pairOf(seen)) this.enter(tour, step);
    this.setFor = pairOf(seen);
  }

  /** The controls are set by somebody else. */
  given() {
    this.setFor = this.wanted = this.promised = null;
  }

  leave() {
    this.given();
    const { tour } = this.store.state;
    this.store.set({ tour: null, step: 0 });
    /** @type {HTMLElement | null} */ (this.questions.querySelector(`[data-tour="${tour}"]`))?.focus({ preventScroll: true });
  }

  show() {
    const tour = this.tour;
    this.card.hidden = !tour;
    this.questions.hidden = Boolean(tour);
    for (const lit of document.querySelectorAll(".lit")) lit.classList.remove("lit");
    if (!tour) return;
    const step = Math.min(this.store.state.step, tour.steps.length - 1);
    this.name.textContent = tour.question;
    this.count.textContent = `${step + 1} of ${tour.steps.length}`;
    if (step === 0 && document.activeElement === this.back) this.next.focus({ preventScroll: true }); // else the focus is lost
    this.back.disabled = step === 0;
    this.next.textContent = step + 1 === tour.steps.length ? "Done" : "Next";
    this.tell();
    const seen = this.current;
    const target = seen ? document.querySelector(tour.steps[step].show({ seen, store: this.store })) : null;
    target?.classList.add("lit");
    for (const panel of document.querySelectorAll(".pixel-panel, .change-panel")) { // which a step before may have scrolled
      if (!target || panel === target || !panel.contains(target)) panel.scrollTop = 0;
    }
    if (target && !inSight(target)) {
      target.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    } else if (target && !target.closest(".closer")) scrollTo({ top: 0 });
  }

  /** The words again, when new numbers have come or a control was turned. */
  tell() {
    const tour = this.tour;
    if (!tour) return;
    const words = this.wordsOf(tour, Math.min(this.store.state.step, tour.steps.length - 1));
    this.again.hidden = words !== TURNED;
    this.live.setAttribute("aria-busy", String(words === AWAITED)); // nobody is told that there is nothing yet
    if (this.words.textContent !== words) fill(this.words, ...withOptions(words));
  }

  /** A step's words; those that tell of valves or dabs only while these are so, and painted.
   * @param {import("./tours.js").Tour} tour @param {number} step */
  wordsOf(tour, step) {
    const seen = this.current, { paths, edits } = this.store.state;
    if (!seen) return AWAITED;
    const promised = this.promiseOf(tour, step, seen);
    if (promised.told && !this.holds(promised)) return TURNED;
    const painted = samePaths(seen.painted.paths, paths) && sameEdits(seen.painted.edits, edits);
    return promised.told && !painted ? AWAITED : tour.steps[step].say({ seen, store: this.store });
  }
}

/** @param {import("./seen.js").Seen} seen */
const pairOf = (seen) => `${seen.model.id} ${seen.image.id}`;

/** @param {Element} element */
function inSight(element) {
  const box = element.getBoundingClientRect();
  return box.top >= find("#ask").offsetHeight && box.bottom <= innerHeight;
}
