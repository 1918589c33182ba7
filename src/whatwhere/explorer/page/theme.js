/** Light or dark: as the machine is set, or as the visitor says. */
import { find } from "./dom.js";

const NAMES = { auto: "as the system", light: "light", dark: "dark" };

const KEY = "whatwhere theme";

/** What was chosen in an earlier visit. A browser that keeps no data of sites throws already where it is asked. */
function remembered() {
  try { return localStorage.getItem(KEY); } catch { return null; }
}

/** @param {string} theme */
function remember(theme) {
  try { localStorage.setItem(KEY, theme); } catch { /* it holds for this visit */ }
}

export function followTheme() {
  const button = find("#theme");
  const kept = remembered();
  /** @type {keyof typeof NAMES} */
  let theme = kept === "light" || kept === "dark" ? kept : "auto";
  const show = () => {
    document.documentElement.dataset.theme = theme;
    button.setAttribute("aria-label", `Light or dark: ${NAMES[theme]}`);
    button.title = `Light or dark: ${NAMES[theme]}`;
  };
  button.onclick = () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const order = /** @type {(keyof typeof NAMES)[]} */ (dark ? ["auto", "light", "dark"] : ["auto", "dark", "light"]);
    theme = order[(order.indexOf(theme) + 1) % order.length];
    remember(theme);
    show();
  };
  show();
}
