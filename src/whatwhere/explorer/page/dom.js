/** Elements in one line each. Styles are set through the CSSOM, so the page lives under a strict content policy. */

/**
 * @param {string} tag
 * @param {Record<string, any>} [given] attributes; `on…` are listeners, `style` an object, `text` the text
 * @param {...(Node | string | null | undefined)} children
 * @returns {HTMLElement}
 */
export function h(tag, given = {}, ...children) {
  return /** @type {HTMLElement} */ (dress(document.createElement(tag), given, children));
}

/**
 * @param {string} tag
 * @param {Record<string, any>} [given]
 * @param {...(Node | string)} children
 * @returns {SVGElement}
 */
export function s(tag, given = {}, ...children) {
  return /** @type {SVGElement} */ (dress(document.createElementNS("http://www.w3.org/2000/svg", tag), given, children));
}

/** @param {Element} element @param {Record<string, any>} given @param {any[]} children */
function dress(element, given, children) {
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "text") element.textContent = value;
    else if (name === "style") place(/** @type {HTMLElement} */ (element), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** @param {HTMLElement | SVGElement} element @param {Record<string, string | number>} styles numbers are px */
export function place(element, styles) {
  for (const [name, value] of Object.entries(styles)) {
    element.style.setProperty(name, typeof value === "number" ? `${value}px` : value);
  }
}

/** @param {Element} element @param {...(Node | string | null)} children */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

/** @param {string} selector @returns {HTMLElement} */
export function find(selector) {
  const found = document.querySelector(selector);
  if (!found) throw new Error(`the page has no ${selector}`);
  return /** @type {HTMLElement} */ (found);
}

/** With a capital first letter. @param {string} text */
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Words in which an option of the command line, as `--data DATA`, is not broken. @param {string} text */
export const withOptions = (text) => text.split(/(--[a-z-]+(?: [A-Z]+)?)/).map((part, at) => (at % 2 ? h("code", { text: part }) : part));

/** One call a frame however often it is asked for. @param {() => void} draw @returns {() => void} */
export function everyFrame(draw) {
  let asked = 0;
  return () => {
    if (!asked) asked = requestAnimationFrame(() => { asked = 0; draw(); });
  };
}

/** @param {number} wait milliseconds @param {(...given: any[]) => void} act */
export function afterPause(wait, act) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  return (/** @type {any[]} */ ...given) => { clearTimeout(timer); timer = setTimeout(() => act(...given), wait); };
}

/** `0.973` as "0.97"; nothing measured as a dash. @param {number | null | undefined} value @param {number} [digits] */
export function figure(value, digits = 2) {
  return value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(digits);
}

/** The step of a grid on the image, across first where the axes differ: "8", "4 × 8". @param {[number, number]} stride  down, across */
export const stepOf = ([down, across]) => (down === across ? `${across}` : `${across} × ${down}`);

/** @param {number} share of 1 */
export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(share > 0.995 || share < 0.1 ? 1 : 0).replace(/\.0$/, "")} %`;
}
