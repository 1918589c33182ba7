/** A class as it is named everywhere: its colour, its letter, its name. */
import { h } from "./dom.js";
import { VOID, paintPattern } from "./colours.js";

/** @param {import("./colours.js").ClassLook[]} looks @param {number} id @param {string} [after] @param {boolean} [named] */
export function chip(looks, id, after = "", named = true) {
  const look = looks[id];
  const name = look ? look.name : id === VOID ? "void (does not count)" : `class ${id}`;
  const mark = h("i", { class: `swatch${look?.dark ? " dark" : ""}`, text: look?.letter ?? "·", "aria-hidden": "true" });
  if (look) mark.style.background = look.color;
  return h("span", { class: "chip", title: name }, mark, named ? h("span", { class: "chip-name", text: name }) : null, after ? h("span", { class: "chip-after", text: after }) : null);
}

/** A class in the legend: with its pattern, where classes are told apart by patterns too.
 * @param {import("./colours.js").ClassLook[]} looks @param {number} id @param {boolean} patterns */
export function legendChip(looks, id, patterns) {
  const found = chip(looks, id);
  if (!patterns) return found;
  const piece = /** @type {HTMLCanvasElement} */ (h("canvas", { class: "pattern", width: 40, height: 20, "aria-hidden": "true" }));
  paintPattern(piece, looks[id]);
  found.firstElementChild?.after(piece);
  return found;
}
