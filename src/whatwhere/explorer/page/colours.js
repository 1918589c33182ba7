/** Classes as colours, letters and patterns. A colour means one class and nothing else; a letter and a pattern say the
 *  same to eyes that do not part those colours. */

export const VOID = 255;

/**
 * @typedef {{id: number, name: string, color: string, rgb: [number, number, number], letter: string, pattern: number,
 *   dark: boolean}} ClassLook
 */

/** @param {import("./types.js").ClassRecord[]} classes @returns {ClassLook[]} by id */
export function classLooks(classes) {
  const taken = new Set();
  /** @type {ClassLook[]} */
  const looks = [];
  classes.forEach((one, index) => {
    const rgb = /** @type {[number, number, number]} */ ([1, 3, 5].map((at) => parseInt(one.color.slice(at, at + 2), 16)));
    const letter = [...`${one.name.toUpperCase()}ABCDEFGHIJKLMNOPQRSTUVWXYZ`].find((c) => /\p{L}/u.test(c) && !taken.has(c)) ?? String(index);
    taken.add(letter);
    looks[one.id] = { ...one, rgb, letter, pattern: index, dark: luminance(rgb) < 0.18 };
  });
  return looks;
}

/** What is drawn where there is no label. */
const hatched = (/** @type {number} */ x, /** @type {number} */ y) => (x + y) % 6 < 2;

/** Relative luminance, 0 to 1 (WCAG 2). @param {[number, number, number]} rgb */
function luminance(rgb) {
  const [r, g, b] = rgb.map((v) => (v <= 10 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** Where a pattern inks, in pixels of the screen. The first class stays plain. */
const PATTERNS = [
  () => false,
  (/** @type {number} */ x, /** @type {number} */ y) => (x + y) % 10 < 2,
  (/** @type {number} */ x, /** @type {number} */ y) => x % 9 < 3 && y % 9 < 3,
  (/** @type {number} */ x, /** @type {number} */ y) => (x - y + 100000) % 10 < 2,
  (/** @type {number} */ _, /** @type {number} */ y) => y % 8 < 2,
  (/** @type {number} */ x) => x % 8 < 2,
  (/** @type {number} */ x, /** @type {number} */ y) => x % 10 < 1 || y % 10 < 1,
  (/** @type {number} */ x, /** @type {number} */ y) => (x + y) % 12 < 2 || (x - y + 120000) % 12 < 2,
];

/** Whether the pattern of a class inks a place. @param {number} pattern @param {number} x @param {number} y */
export function inked(pattern, x, y) {
  if (pattern === 0) return false;
  // beyond the eighth class those that ink come again, twice as coarse, then thrice
  const coarse = 1 + Math.floor((pattern - 1) / (PATTERNS.length - 1));
  return PATTERNS[1 + ((pattern - 1) % (PATTERNS.length - 1))](Math.floor(x / coarse), Math.floor(y / coarse));
}

/** What a pattern is drawn in. @param {ClassLook} look */
const inkOf = (look) => look.rgb.map((v) => (look.dark ? v + 0.45 * (255 - v) : 0.6 * v));

/** A piece of a class's pattern, for a legend. @param {HTMLCanvasElement} canvas @param {ClassLook} look */
export function paintPattern(canvas, look) {
  const { width, height } = canvas;
  const picture = new ImageData(width, height);
  const out = new Uint32Array(picture.data.buffer);
  const ink = pack(inkOf(look)), full = pack(look.rgb);
  for (let at = 0; at < out.length; at++) out[at] = inked(look.pattern, at % width, Math.floor(at / width)) ? ink : full;
  canvas.getContext("2d")?.putImageData(picture, 0, 0);
}

/**
 * Labels as colours on a canvas, one canvas pixel for each label, or `zoom` when patterns are wanted.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {Uint8Array} ids
 * @param {number} width
 * @param {number} height
 * @param {ClassLook[]} looks
 * @param {{patterns?: boolean, strength?: (index: number) => number}} [how] strength: 0 (pale) to 1 (full colour) by pixel
 */
export function paintLabels(canvas, ids, width, height, looks, how = {}) {
  const zoom = how.patterns ? Math.max(1, Math.round(640 / Math.max(width, height))) : 1;
  const picture = new ImageData(width * zoom, height * zoom);
  const out = new Uint32Array(picture.data.buffer);
  const full = new Uint32Array(256), pale = new Uint32Array(256), ink = new Uint32Array(256);
  for (let id = 0; id < 256; id++) {
    const look = looks[id];
    const rgb = look ? look.rgb : [128, 128, 128];
    full[id] = pack(rgb);
    pale[id] = pack(rgb.map((v) => 0.14 * v + 0.86 * 150));
    ink[id] = look ? pack(inkOf(look)) : pack(rgb.map((v) => 0.6 * v));
  }
  for (let y = 0, at = 0; y < height * zoom; y++) {
    const row = Math.floor(y / zoom) * width;
    for (let x = 0; x < width * zoom; x++, at++) {
      const index = zoom === 1 ? row + x : row + Math.floor(x / zoom);
      const id = ids[index];
      const strong = id === VOID || !how.strength || how.strength(index) > 0.5;
      const marked = how.patterns && looks[id] ? inked(looks[id].pattern, x, y) : id === VOID && hatched(x, y);
      out[at] = !strong ? pale[id] : marked ? ink[id] : full[id];
    }
  }
  canvas.width = width * zoom;
  canvas.height = height * zoom;
  canvas.getContext("2d")?.putImageData(picture, 0, 0);
}

/** Dark where unsure. @param {HTMLCanvasElement} canvas @param {Uint8Array} certainty @param {Uint8Array} labels @param {number} width @param {number} height */
export function paintCertainty(canvas, certainty, labels, width, height) {
  const picture = new ImageData(width, height);
  certainty.forEach((sure, at) => {
    const value = labels[at] !== VOID ? sure : hatched(at % width, Math.floor(at / width)) ? 77 : 128;
    picture.data.set([value, value, value, 255], 4 * at);
  });
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d")?.putImageData(picture, 0, 0);
}

/** @param {number[]} rgb as a little-endian RGBA word */
function pack(rgb) {
  return ((255 << 24) | (Math.round(rgb[2]) << 16) | (Math.round(rgb[1]) << 8) | Math.round(rgb[0])) >>> 0;
}

/**
 * Evidence over a greyed image: gold speaks for the painted class, teal against it, as strongly as it is opaque.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {Uint8Array} signed 128 is none
 * @param {number} width
 * @param {number} height
 */
export function paintEvidence(canvas, signed, width, height) {
  const picture = new ImageData(width, height);
  let most = 1;
  for (const value of signed) most = Math.max(most, Math.abs(value - 128));
  signed.forEach((value, at) => {
    const share = Math.sqrt(Math.abs(value - 128) / most);
    const rgb = value > 128 ? [255, 190, 0] : [0, 178, 178];
    picture.data.set([...rgb, Math.round(255 * Math.min(1, 1.15 * share))], 4 * at);
  });
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d")?.putImageData(picture, 0, 0);
}
