/** Where the parts of a U go: plain numbers from a network's layers and paths, at any depth. Knows no elements. */

/**
 * @typedef {{x: number, y: number, side: "left" | "right" | "middle"}} Place  of a layer's picture, its left top corner
 * @typedef {{path: import("./types.js").Path, x0: number, x1: number, y: number}} Line
 * @typedef {{width: number, gap: number, height: number, least: number, picture: number, rows: number[], tops: number[],
 *   layers: Record<string, Place>, skips: Line[], bottleneck: Line | null, band: string, bandWidth: number,
 *   steps: {x: number, y: number, down: boolean}[]}} Layout
 */

const ROOM_BELOW = 26; // under a picture: the bar of what its probe reads, and the arrow to the next
const LEAST_PITCH = 6.7; // rem: three lines of words and a valve
const LINE_BELOW = 4.1; // rem under the top of a row
const MOST_PICTURE = 150;
const NARROW = 360; // px: there the gaps are small, so that two names stand beside each other
const VALVE = 50; // of a valve with its choices: so far apart are skips of one level

/**
 * @param {import("./types.js").Model} model
 * @param {number} width px that there are
 * @param {number} height px that there are; a deep network takes more
 * @param {number} rem px
 * @returns {Layout}
 */
export function layoutU(model, width, height, rem) {
  const shown = model.layers.filter((one) => one.role !== "pixel" && one.role !== "output");
  const levels = [...new Set(shown.filter((one) => one.role !== "bottleneck").map((one) => one.level))].sort((a, b) => a - b);
  const rowOf = (/** @type {import("./types.js").Path} */ path) => Math.max(0, levels.findIndex((level) => level >= path.level));
  const skips = model.paths.filter((path) => path.kind === "skip");
  const more = levels.map((_, row) => VALVE * Math.max(0, skips.filter((path) => rowOf(path) === row).length - 1));
  const extra = more.reduce((sum, one) => sum + one, 0), least = Math.round(LEAST_PITCH * rem);
  const pitch = Math.max(least, Math.floor((height - extra) / (levels.length + 1)));
  const tops = [4];
  for (const one of more) tops.push(tops[tops.length - 1] + pitch + one);
  const picture = Math.round(Math.min(pitch - ROOM_BELOW, MOST_PICTURE, 0.2 * width));
  const inset = 10, gap = gapOf(width);
  /** @type {Record<string, Place>} */
  const layers = {};
  for (const one of shown) {
    const row = one.role === "bottleneck" ? levels.length : levels.indexOf(one.level);
    const y = tops[row];
    if (one.role === "encoder") layers[one.name] = { x: inset, y, side: "left" };
    if (one.role === "decoder") layers[one.name] = { x: width - inset - picture, y, side: "right" };
    if (one.role === "bottleneck") layers[one.name] = { x: (width - picture) / 2, y, side: "middle" };
  }
  const floor = tops[levels.length];
  return {
    width, gap, height: (levels.length + 1) * pitch + extra, least: (levels.length + 1) * least + extra, picture, rows: levels, tops,
    layers, ...lines(model, skips, rowOf, tops, width, picture, inset, Math.max(0.82 * picture, LINE_BELOW * rem)),
    band: band(inset + picture / 2, width - inset - picture / 2, floor + picture / 2),
    bandWidth: picture + 2 * inset,
    steps: steps(layers, picture, tops),
  };
}

/** Between a picture and what stands beside it. @param {number} width */
const gapOf = (width) => (width < NARROW ? 6 : 14);

/** Skips of one level lie under each other. @returns {{skips: Line[], bottleneck: Line | null}} */
function lines(/** @type {import("./types.js").Model} */ model, /** @type {import("./types.js").Path[]} */ among,
  /** @type {(path: import("./types.js").Path) => number} */ rowOf, /** @type {number[]} */ tops, /** @type {number} */ width,
  /** @type {number} */ picture, /** @type {number} */ inset, /** @type {number} */ below) {
  const x0 = inset + picture + gapOf(width);
  /** @type {Map<number, number>} */
  const met = new Map();
  const skips = among.map((path) => {
    const row = rowOf(path), before = met.get(row) ?? 0;
    met.set(row, before + 1);
    return { path, x0, x1: width - x0, y: tops[row] + below + before * VALVE };
  });
  const deep = model.paths.find((path) => path.kind === "bottleneck");
  const from = (width + picture) / 2 + gapOf(width);
  return { skips, bottleneck: deep ? { path: deep, x0: from, x1: width - inset - picture / 2, y: tops[tops.length - 1] + picture / 2 } : null };
}

/** The U itself: down, round, across, round, up. */
function band(/** @type {number} */ left, /** @type {number} */ right, /** @type {number} */ floor) {
  const bend = Math.min(60, (right - left) / 4, floor);
  return `M${left} -6V${floor - bend}Q${left} ${floor} ${left + bend} ${floor}H${right - bend}Q${right} ${floor} ${right} ${floor - bend}V-6`;
}

/** The arrows between the pictures of one side. */
function steps(/** @type {Record<string, Place>} */ layers, /** @type {number} */ picture, /** @type {number[]} */ tops) {
  return Object.values(layers).filter((one) => one.side !== "middle").map((one) => ({
    x: one.x + picture / 2, y: tops[tops.indexOf(one.y) + 1] - 10, down: one.side === "left",
  }));
}
