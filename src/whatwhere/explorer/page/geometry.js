/** Which pixels the unit of a layer sees, and for which it answers: looked up in arrays, so a pointer costs no request. */

/** @typedef {{x0: number, y0: number, x1: number, y1: number}} Box  half open, in pixels of the image */

export class Windows {
  /** @param {import("./types.js").Geometry} geometry */
  constructor(geometry) {
    this.width = geometry.width;
    this.height = geometry.height;
    this.layers = geometry.layers;
    /** @type {Map<string, {rows: number[][], columns: number[][]}>} */
    this.extents = new Map(
      Object.entries(geometry.layers).map(([name, one]) => [
        name, { rows: extents(one.cells.rows), columns: extents(one.cells.columns) },
      ]),
    );
  }

  /** The window of the unit that answers for a pixel. @param {string} layer @returns {Box | null} */
  window(layer, /** @type {number} */ x, /** @type {number} */ y) {
    const one = this.layers[layer];
    if (!one || !one.rows[y] || !one.columns[x]) return null;
    const [[y0, y1], [x0, x1]] = [one.rows[y], one.columns[x]];
    return { x0, y0, x1, y1 };
  }

  /** The pixels that the same unit answers for. @param {string} layer @returns {Box | null} */
  cell(layer, /** @type {number} */ x, /** @type {number} */ y) {
    const one = this.layers[layer];
    const found = this.extents.get(layer);
    if (!one || !found || one.cells.rows[y] === undefined || one.cells.columns[x] === undefined) return null;
    const [y0, y1] = found.rows[one.cells.rows[y]];
    const [x0, x1] = found.columns[one.cells.columns[x]];
    return { x0, y0, x1, y1 };
  }
}

/** First and one past the last pixel of each unit. @param {number[]} cells unit index by pixel */
function extents(cells) {
  /** @type {number[][]} */
  const found = [];
  cells.forEach((unit, pixel) => {
    found[unit] ??= [pixel, pixel + 1];
    found[unit][1] = pixel + 1;
  });
  return found;
}
