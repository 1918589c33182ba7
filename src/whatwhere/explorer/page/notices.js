/** What went wrong, as three lines: what was given, what was expected, what to do. And what is only worth a word. */
import { capital, h, find, fill, withOptions } from "./dom.js";
import { ApiError, SILENT } from "./api.js";

const MOST = 3;
const READ = 5000; // milliseconds in which a few words are read

/** @param {unknown} error */
export function trouble(error) {
  if (/** @type {any} */ (error)?.name === "AbortError") return;
  const known = error instanceof ApiError;
  if (!known) console.error(error);
  const parts = known ? /** @type {ApiError} */ (error)
    : { given: `the page itself failed: ${/** @type {any} */ (error)?.message ?? error}`, expected: "", remedy: "reload it; if it fails again, that is a bug worth telling" };
  const place = find("#notices");
  const same = [...place.children].find((one) => /** @type {HTMLElement} */ (one).dataset.given === parts.given);
  same?.remove();
  while (place.children.length >= MOST) place.firstElementChild?.remove();
  const close = h("button", { type: "button", class: "close", "aria-label": "Dismiss", text: "×", onclick: () => dismiss(card) });
  const card = h("div", { class: "notice", role: "alert", "data-given": parts.given }, close, ...lines(parts));
  place.append(card);
}

/** Focus goes to the next one, or to what all is about: it would be lost with the button. @param {HTMLElement} card */
function dismiss(card) {
  const place = find("#notices");
  card.remove();
  (place.querySelector("button") ?? find("#stage")).focus();
}

/** The explorer answers again: that it does not is soon taken away. At once, nobody would read what failed. */
export function heardAgain() {
  for (const card of find("#notices").children) {
    if (/** @type {HTMLElement} */ (card).dataset.given === SILENT) setTimeout(() => card.remove(), READ);
  }
}

/** What is only worth a word, for a while. @param {string} words */
export function word(words) {
  const place = find("#word");
  place.textContent = words;
  place.hidden = false;
  clearTimeout(gone);
  gone = setTimeout(() => { place.hidden = true; }, READ);
}
/** @type {ReturnType<typeof setTimeout> | undefined} */
let gone;

/** With a capital first letter, unless a name stands there: a file or a path is written as it is. @param {string} text */
export const sentence = (text) => (/^[^\s\d/\\._]+(\s|$)/.test(text) ? capital(text) : text);

/** @param {{given: string, expected: string, remedy: string}} parts */
export const lines = (parts) => [
  h("p", { class: "given", text: sentence(parts.given) }),
  parts.expected ? h("p", {}, h("span", { class: "quiet", text: "Expected: " }), parts.expected) : null,
  parts.remedy ? h("p", {}, h("span", { class: "quiet", text: "What to do: " }), ...withOptions(parts.remedy)) : null,
];

/** In place of the whole page, when there is nothing to show. @param {string} title @param {{given: string, expected: string, remedy: string}} parts @param {(() => void) | null} again */
export function stand(title, parts, again) {
  const place = find("#instead");
  place.hidden = false;
  find("#stage").hidden = true;
  fill(place, h("h2", { text: title }), ...lines(parts), again ? h("button", { type: "button", text: "Try again", onclick: again }) : null);
}
