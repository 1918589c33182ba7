/** Pixels worth looking at, found in the pictures that are there: where the tours begin, and where the page opens. */
import { shares, agreement } from "./pictures.js";
import { VOID } from "./colours.js";

/** @typedef {{x: number, y: number}} Point */

/** The middle of what is not the commonest label. @param {import("./seen.js").Seen} seen @returns {Point} */
export function telling(seen) {
  const { labels } = seen.painted;
  const common = shares(labels).keys().next().value;
  return middle(seen, (at) => labels[at] !== common) ?? middle(seen, () => true) ?? { x: seen.width >> 1, y: seen.height >> 1 };
}

/** Where the finest level's probe is wrong about the interior of something, and the deepest right.
 * @param {import("./seen.js").Seen} seen @returns {Point} */
export function needsContext(seen) {
  const levels = seen.levels;
  const answer = seen.truth ?? seen.untouched.labels;
  const shallow = levels?.get(first(seen)), deep = levels?.get("bottleneck");
  if (!shallow || !deep) return telling(seen);
  return middle(seen, (at) => shallow[at] !== answer[at] && deep[at] === answer[at] && !atEdge(seen, answer, at, 3)) ?? telling(seen);
}

/** Where the deepest level's probe misses a fine shape that the painting has. @param {import("./seen.js").Seen} seen @returns {Point} */
export function needsPlace(seen) {
  const answer = seen.untouched.labels;
  const deep = seen.levels?.get("bottleneck");
  return middle(seen, (at) => atEdge(seen, answer, at, 1) && (!deep || deep[at] !== answer[at])) ?? telling(seen);
}

/** Whether the pixel that is chosen lies at an edge of the painting. @param {import("./tours.js").Scene} scene */
export const placedAtEdge = ({ seen, store }) => atEdge(seen, seen.untouched.labels, store.state.y * seen.width + store.state.x, 1);

/** The skip that is worth trying first: the finest. @param {import("./seen.js").Seen} seen */
export const finestSkip = (seen) => seen.model.paths.find((path) => path.kind === "skip")?.name ?? null;

/** @param {import("./seen.js").Seen} seen name of the finest layer of the way down */
export const first = (seen) => seen.model.layers.find((one) => one.role === "encoder")?.name ?? "bottleneck";

/** How far each level's painting agrees with the answer. @param {import("./seen.js").Seen} seen @param {string} layer */
export const agrees = (seen, layer) => {
  const ids = seen.levels?.get(layer);
  return ids ? agreement(ids, seen.truth ?? seen.untouched.labels) : null;
};

/** Whether another label lies within some pixels; where there is no data there is none. @param {import("./seen.js").Seen} seen @param {Uint8Array} labels */
function atEdge(seen, labels, /** @type {number} */ at, /** @type {number} */ reach) {
  const { width, height } = seen;
  const x = at % width, y = Math.floor(at / width);
  for (const [dx, dy] of [[reach, 0], [-reach, 0], [0, reach], [0, -reach]]) {
    const [u, v] = [x + dx, y + dy];
    if (u >= 0 && v >= 0 && u < width && v < height && ![labels[at], VOID].includes(labels[v * width + u])) return true;
  }
  return false;
}

/** Of the pixels with data that fit, the one nearest to the middle of them all. @param {import("./seen.js").Seen} seen
 * @param {(at: number) => boolean} fits @returns {Point | null} */
function middle(seen, fits) {
  /** @type {Point[]} */
  const found = [];
  const { labels } = seen.untouched;
  for (let at = 0; at < labels.length; at++) if (labels[at] !== VOID && fits(at)) found.push({ x: at % seen.width, y: Math.floor(at / seen.width) });
  if (!found.length) return null;
  const mean = { x: found.reduce((sum, one) => sum + one.x, 0) / found.length, y: found.reduce((sum, one) => sum + one.y, 0) / found.length };
  return found.reduce((best, one) => (Math.hypot(one.x - mean.x, one.y - mean.y) < Math.hypot(best.x - mean.x, best.y - mean.y) ? one : best));
}
