/** The pictures in words, for those who hear the page: what the pixel is, what each level sees and reads there. */
import { VOID } from "./colours.js";
import { capital, figure, percent, afterPause, find } from "./dom.js";

/** @param {import("./seen.js").Seen} seen @param {{x: number, y: number}} pixel */
export function pixelSentence(seen, pixel) {
  const { label, probability, truth } = seen.at(pixel.x, pixel.y);
  const name = (/** @type {number} */ id) => seen.looks[id]?.name ?? "void";
  if (label === VOID) return `x ${pixel.x}, y ${pixel.y}: no data.`;
  const mask = truth === null ? "" : truth === label ? ", as in the mask" : `, but the mask says ${name(truth)}`;
  return `x ${pixel.x}, y ${pixel.y}: painted ${name(label)}, probability ${figure(probability)}${mask}.`;
}

/** @param {import("./seen.js").Seen} seen @param {{x: number, y: number}} pixel */
export function windowsSentence(seen, pixel) {
  const told = seen.model.layers.filter((one) => one.role !== "pixel").flatMap((layer) => {
    const box = seen.windows.window(layer.name, pixel.x, pixel.y);
    return box ? [`${layer.title} sees ${box.x1 - box.x0} by ${box.y1 - box.y0}`] : [];
  });
  return `Windows in pixels: ${told.join(", ")}.`;
}

/** @param {import("./seen.js").Seen} seen */
export function changeSentence(seen) {
  if (seen.painted === seen.untouched) return "";
  const { scores, full_scores: full, changed } = seen.painted.record;
  return [`${percent(changed)} of the pixels changed.`, scores && full ? scoresSentence(scores, full) : ""].filter(Boolean).join(" ");
}

/** How the scores moved that this image has. @param {import("./types.js").Scores} now @param {import("./types.js").Scores} full */
export function scoresSentence(now, full) {
  const told = /** @type {const} */ (["interior", "boundary"]).filter((kind) => full[kind] !== null)
    .map((kind) => `${kind} accuracy goes from ${figure(full[kind])} to ${figure(now[kind])}`);
  return told.length ? `${capital(told.join(", "))}.` : "";
}

/** Says the last thing asked for once it is quiet; never a queue of old news. */
export const speak = afterPause(450, (/** @type {string} */ words) => { find("#spoken").textContent = words; });
