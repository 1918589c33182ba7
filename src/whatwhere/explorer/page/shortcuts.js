/** Single keys, listed in the help and switched off there by those whom they disturb (WCAG 2.1.4). */
import { find } from "./dom.js";
import { remember, remembered } from "./remember.js";

/** @typedef {{key: string, does: string, act: () => void}} Shortcut */

/** @param {Shortcut[]} shortcuts */
export function listen(shortcuts) {
  const allowed = /** @type {HTMLInputElement} */ (find("#single-keys"));
  allowed.checked = remembered("single keys") !== "off";
  allowed.addEventListener("change", () => remember("single keys", allowed.checked ? "on" : "off"));
  addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z" && !isText(event.target)) {
      shortcuts.find((one) => one.key === "U")?.act();
      event.preventDefault();
      return;
    }
    // on many keyboards brackets are typed with AltGr (which Windows tells as Ctrl and Alt) or Option
    const bracket = "[]".includes(event.key) && (event.getModifierState("AltGraph") || event.altKey);
    if ((!bracket && (event.ctrlKey || event.altKey)) || event.metaKey || isText(event.target)) return;
    if (event.key !== "Escape" && !allowed.checked) return;
    if (document.querySelector("dialog[open]")) return;
    const found = shortcuts.find((one) => one.key.toLowerCase() === event.key.toLowerCase());
    if (!found) return;
    found.act();
    event.preventDefault();
  });
}

/** Where letters are letters. @param {EventTarget | null} target */
const isText = (target) => target instanceof HTMLElement && target.matches("select, textarea, input:not([type=range], [type=radio], [type=checkbox])");
