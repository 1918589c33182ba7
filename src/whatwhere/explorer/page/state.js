/**
 * What is seen, and where it is kept: in the address, after `#`. Whoever gets the address sees the same.
 *
 * One store. Its fields change only through `set`; whoever watches gets the names of those that changed. The pointer
 * is no part of the state: it has its own `point`, which costs nobody a request.
 */

/**
 * @typedef {Object} State
 * @property {string} model
 * @property {string | null} other  the second model, when two are compared
 * @property {string | null} image
 * @property {number} x
 * @property {number} y
 * @property {Record<string, import("./types.js").Hold>} paths  only those that do not simply pass
 * @property {Record<string, import("./types.js").Hold>} otherPaths
 * @property {import("./types.js").Edit[]} edits
 * @property {string} layer  whose window stands out and whose features are shown
 * @property {"painting" | "difference" | "truth" | "certainty"} look  what is seen at the right top
 * @property {boolean} evidence  whether the evidence lies over the image
 * @property {boolean} patterns  whether classes are also told apart by patterns
 * @property {"point" | "grey" | "blur" | "paste"} tool
 * @property {number} radius
 * @property {string | null} tour
 * @property {number} step
 */

/** @type {State} */
export const START = {
  model: "", other: null, image: null, x: -1, y: -1, paths: {}, otherPaths: {}, edits: [], layer: "bottleneck",
  look: "painting", evidence: false, patterns: false, tool: "point", radius: 8, tour: null, step: 0,
};

/** What the server takes (asked.py): so many strokes, of such a radius. */
export const MOST_EDITS = 200, LARGEST_RADIUS = 64;

const LOOKS = ["painting", "difference", "truth", "certainty"];
const TOOLS = ["point", "grey", "blur", "paste"];
const KINDS = { g: "grey", b: "blur", p: "paste" };

export class Store {
  /** @param {State} state */
  constructor(state) {
    this.state = state;
    /** @type {{x: number, y: number} | null} */
    this.pointer = null;
    /** @type {((changed: Set<string>) => void)[]} */
    this.watchers = [];
    /** @type {(() => void)[]} */
    this.pointed = [];
  }

  /** @param {(changed: Set<string>) => void} act */
  watch(act) { this.watchers.push(act); }

  /** @param {() => void} act called when the pointer is over another pixel */
  watchPointer(act) { this.pointed.push(act); }

  /** @param {Partial<State>} given */
  set(given) {
    /** @type {Set<string>} */
    const changed = new Set();
    for (const [name, value] of Object.entries(given)) {
      if (JSON.stringify(this.state[/** @type {keyof State} */ (name)]) !== JSON.stringify(value)) changed.add(name);
    }
    if (!changed.size) return;
    this.state = { ...this.state, ...given };
    for (const act of this.watchers) act(changed);
  }

  /** @param {{x: number, y: number} | null} pointer */
  point(pointer) {
    if (pointer?.x === this.pointer?.x && pointer?.y === this.pointer?.y) return;
    this.pointer = pointer;
    for (const act of this.pointed) act();
  }

  /** The pixel that is looked at: under the pointer, else the one last chosen. */
  get here() { return this.pointer ?? { x: this.state.x, y: this.state.y }; }
}

/** Whether two settings of the valves are one: a slider at its end is as the word for it.
 * @param {State["paths"]} one @param {State["paths"]} other */
export function samePaths(one, other) {
  const text = (/** @type {State["paths"]} */ paths) => JSON.stringify(Object.entries(paths).filter(([, hold]) => hold !== 1 && hold !== "pass")
    .map(([name, hold]) => [name, hold === 0 ? "mean" : hold]).sort());
  return text(one) === text(other);
}

/** Not a number where nothing stands, which `Number` takes for 0. @param {string | undefined} text */
const numberIn = (text) => (text?.trim() ? Number(text) : NaN);

/** @param {Record<string, import("./types.js").Hold>} paths */
const pathsToText = (paths) => Object.entries(paths).map(([name, hold]) => `${name}:${hold}`).join("~");

/** @param {string | null} text @returns {Record<string, import("./types.js").Hold>} */
function pathsFromText(text) {
  /** @type {Record<string, import("./types.js").Hold>} */
  const paths = {};
  for (const one of (text || "").split("~")) {
    const at = one.lastIndexOf(":");
    const hold = one.slice(at + 1);
    if (at <= 0) continue;
    if (hold === "cut" || hold === "mean") paths[one.slice(0, at)] = hold;
    else if (numberIn(hold) >= 0 && numberIn(hold) <= 1) paths[one.slice(0, at)] = numberIn(hold);
  }
  return paths;
}

/** @param {import("./types.js").Edit[]} edits */
const editsToText = (edits) => edits.map((e) => [e.kind[0] + e.x, e.y, e.radius, ...(e.from ?? [])].join(",")).join("~");

/** @param {State["edits"]} one @param {State["edits"]} other */
export const sameEdits = (one, other) => editsToText(one) === editsToText(other);

/** @param {string | null} text @returns {import("./types.js").Edit[]} */
function editsFromText(text) {
  return (text || "").split("~").flatMap((one) => {
    const kind = KINDS[/** @type {keyof typeof KINDS} */ (one[0])];
    const [x, y, radius, fx, fy] = one.slice(1).split(",").map(numberIn);
    if (!kind || ![x, y, radius].every(Number.isInteger) || radius < 1 || (kind === "paste" && ![fx, fy].every(Number.isInteger))) return [];
    return [{ kind, x, y, radius, ...(kind === "paste" ? { from: [fx, fy] } : {}) }];
  });
}

/** Those that the explorer takes: on an image of this size, and so is what they paste; not too large, and not too many.
 * @param {import("./types.js").Edit[]} edits @param {{width: number, height: number}} image */
export const strokesOn = (edits, { width, height }) => edits.filter(({ x, y, radius, from = [x, y] }) =>
  Math.min(x, y, ...from) >= 0 && Math.max(x, from[0]) < width && Math.max(y, from[1]) < height && radius <= LARGEST_RADIUS).slice(0, MOST_EDITS);

/** @param {State} state with names for ids @returns {string} without the `#` */
export function toAddress(state) {
  const said = new URLSearchParams();
  const say = (/** @type {string} */ key, /** @type {any} */ value) => { if (value) said.set(key, String(value)); };
  say("model", state.model);
  say("with", state.other);
  say("image", state.image);
  if (state.x >= 0) said.set("pixel", `${state.x},${state.y}`);
  say("paths", pathsToText(state.paths));
  say("paths2", pathsToText(state.otherPaths));
  say("edits", editsToText(state.edits));
  if (state.layer !== START.layer) say("layer", state.layer);
  if (state.look !== START.look) say("look", state.look);
  say("evidence", state.evidence && 1);
  say("patterns", state.patterns && 1);
  if (state.tool !== START.tool) say("tool", `${state.tool},${state.radius}`);
  if (state.tour) said.set("tour", `${state.tour},${state.step}`);
  return said.toString().replaceAll("%2C", ",").replaceAll("%3A", ":").replaceAll("%7E", "~");
}

/** @param {string} address with or without `#` @returns {Partial<State>} what it says, names for ids; nonsense is left out */
export function fromAddress(address) {
  const said = new URLSearchParams(address.replace(/^#/, ""));
  const [x, y] = (said.get("pixel") || "-1,-1").split(",").map(numberIn);
  const [tool, radius] = (said.get("tool") || "point,8").split(",");
  const [tour, step] = (said.get("tour") || ",0").split(",");
  const whole = Number.isInteger(x) && Number.isInteger(y) && Math.min(x, y) >= 0;
  return {
    model: said.get("model") || "", other: said.get("with"), image: said.get("image"),
    x: whole ? x : -1, y: whole ? y : -1,
    paths: pathsFromText(said.get("paths")), otherPaths: pathsFromText(said.get("paths2")),
    edits: editsFromText(said.get("edits")), layer: said.get("layer") || START.layer,
    look: /** @type {State["look"]} */ (LOOKS.includes(said.get("look") || "") ? said.get("look") : "painting"),
    evidence: said.get("evidence") === "1", patterns: said.get("patterns") === "1",
    tool: /** @type {State["tool"]} */ (TOOLS.includes(tool) ? tool : "point"),
    radius: Number(radius) >= 1 ? Math.min(LARGEST_RADIUS, Math.round(Number(radius))) : START.radius,
    tour: tour || null, step: Math.max(0, Math.floor(Number(step)) || 0),
  };
}
