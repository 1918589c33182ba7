/** Light or dark: as the machine is set, or as the visitor says. */
import { find } from "./dom.js";
import { remember, remembered } from "./remember.js";

const NAMES = { auto: "as the system", light: "light", dark: "dark" };

export function followTheme() {
  const button = find("#theme");
  const kept = remembered("theme");
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
    remember("theme", theme);
    show();
  };
  show();
}
