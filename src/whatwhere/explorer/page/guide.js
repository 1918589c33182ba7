/** Walks a visitor through a tour: says the step's words, sets its controls, and shows where to look. */
import { h, fill, find } from "./dom.js";
import { TOURS } from "./tours.js";

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
    this.next = /** @type {HTMLButtonElement} */ (h("button", { type: "button", class: "primary", text: "Next", onclick: () => this.go(1) }));
    this.card = h("div", { class: "tour", role: "region", "aria-label": "Tour" }, h("div", { class: "tour-head" }, this.name, this.count),
      h("div", { class: "tour-live", "aria-live": "polite" }, this.words),
      h("div", { class: "tour-buttons" }, this.back, this.next, h("button", { type: "button", class: "leave", text: "Leave", "aria-keyshortcuts": "Escape", onclick: () => this.leave() })));
    this.questions = h("div", { class: "questions", role: "group", "aria-label": "Ask: five short tours" },
      h("span", { class: "ask-name", "aria-hidden": "true", text: "Ask" }),
      ...TOURS.map((tour) => h("button", { type: "button", class: "question", "data-tour": tour.id, text: tour.question, onclick: () => this.begin(tour.id) })));
    fill(this.element, this.questions, this.card);
    /** The model and image that the step's controls were set for; null where an address set them. */
    this.setFor = /** @type {string | null} */ (null);
    /** The step that begins when what is chosen is there. */
    this.wanted = /** @type {{id: string, step: number} | null} */ (null);
    store.watch((changed) => { if (changed.has("tour") || changed.has("step")) this.show(); });
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
    this.store.set({ ...tour.steps[step].set({ seen, store: this.store }), tour: id, step });
  }

  /** Another image or model is there: a step's controls are set anew, as its words tell of them. */
  follow() {
    const seen = this.current, { tour, step } = this.store.state;
    if (!seen) return;
    if (this.wanted) this.enter(this.wanted.id, this.wanted.step);
    else if (tour && this.setFor !== null && this.setFor !== pairOf(seen)) this.enter(tour, step);
    this.setFor = pairOf(seen);
  }

  /** The controls are set by somebody else. */
  given() {
    this.setFor = this.wanted = null;
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

  /** The words again, when new numbers have come. */
  tell() {
    const tour = this.tour;
    const seen = this.current;
    if (!tour) return;
    const step = tour.steps[Math.min(this.store.state.step, tour.steps.length - 1)];
    const words = seen ? step.say({ seen, store: this.store }) : "…";
    if (this.words.textContent !== words) this.words.textContent = words;
  }
}

/** @param {import("./seen.js").Seen} seen */
const pairOf = (seen) => `${seen.model.id} ${seen.image.id}`;

/** @param {Element} element */
function inSight(element) {
  const box = element.getBoundingClientRect();
  return box.top >= find("#ask").offsetHeight && box.bottom <= innerHeight;
}
