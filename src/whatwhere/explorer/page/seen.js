/** What is known of one model on one image: asked for once, kept together, and handed on when it is there. */
import { ask, askOnce, addressed, ApiError, mayComeBack, pause } from "./api.js";
import { Windows } from "./geometry.js";
import { classLooks } from "./colours.js";
import { loadImage, unpack } from "./pictures.js";

/**
 * @typedef {Object} Painted
 * @property {Uint8Array} labels
 * @property {Uint8Array} certainty  0 to 255: the probability of the painted class
 * @property {HTMLImageElement | null} picture  the edited image, if it was edited
 * @property {import("./types.js").PaintingRecord} record
 * @property {State["paths"]} paths  what was held
 * @property {State["edits"]} edits  what was brushed
 */

export const FAILURES = 5; // so often paintings are asked for that did not come
export const UNTIL_AGAIN = 3000; // milliseconds between

export class Seen {
  /** @param {import("./types.js").Model} model @param {import("./types.js").ImageRecord} image */
  constructor(model, image) {
    this.model = model;
    this.image = image;
    this.looks = classLooks(model.classes);
    this.width = image.width;
    this.height = image.height;
    /** @type {Windows} */ this.windows;
    /** @type {HTMLImageElement} */ this.picture;
    /** @type {Uint8Array | null} */ this.truth = null;
    /** @type {Painted} */ this.untouched;
    /** @type {Painted} */ this.painted;
    /** @type {Map<string, Uint8Array> | null} */ this.levels = null;
    /** @type {import("./types.js").ProbesRecord | null} */ this.probes = null;
    /** @type {unknown} why the levels' paintings did not come */ this.failed = null;
    /** @type {import("./types.js").PixelRecord & {x: number, y: number} | null} */ this.story = null;
    /** @type {import("./types.js").EvidenceRecord | null} */ this.evidence = null;
  }

  /** @param {string} modelId @param {import("./types.js").ImageRecord} image @returns {Promise<Seen>} */
  static async of(modelId, image) {
    const seen = new Seen(await askOnce(`/api/models/${modelId}`), image);
    const [geometry, picture, truth, untouched] = await Promise.all([
      askOnce(`/api/models/${modelId}/images/${image.id}`),
      pictureOf(image),
      image.truth ? askOnce(`/api/images/${image.id}/truth`).then((found) => unpack(found.labels)) : null,
      seen.paint({}, []),
    ]);
    seen.windows = new Windows(geometry);
    seen.picture = picture;
    seen.truth = truth;
    seen.untouched = seen.painted = untouched;
    return seen;
  }

  /** @param {State["paths"]} paths @param {State["edits"]} edits @returns {Promise<Painted>} */
  async paint(paths, edits) {
    const body = { model: this.model.id, image: this.image.id, paths: this.known(paths), edits };
    const record = await ask("/api/painting", { body });
    const [labels, certainty, picture] = await Promise.all([
      unpack(record.labels), unpack(record.probability), record.picture ? loadImage(record.picture) : null,
    ]);
    return { labels, certainty, picture, record, paths: body.paths, edits };
  }

  /** @param {number} x @param {number} y @param {State["paths"]} paths @param {State["edits"]} edits @returns {Promise<import("./types.js").PixelRecord>} */
  tellPixel(x, y, paths, edits) {
    return ask("/api/pixel", { body: { model: this.model.id, image: this.image.id, x, y, paths: this.known(paths), edits } });
  }

  /** @param {number} x @param {number} y @param {State["edits"]} edits @param {AbortSignal} signal @param {number} slot */
  async askEvidence(x, y, edits, signal, slot) {
    const record = await ask("/api/evidence", { body: { model: this.model.id, image: this.image.id, x, y, edits }, signal, slot });
    return { record, signed: await unpack(record.evidence) };
  }

  /** Only what this model has: an address may name paths of another. @param {State["paths"]} paths */
  known(paths) {
    const names = new Set(this.model.paths.map((path) => path.name));
    return Object.fromEntries(Object.entries(paths).filter(([name]) => names.has(name)));
  }

  /**
   * Waits for the probes, then for what they paint on this image.
   *
   * @param {(probes: import("./types.js").ProbesRecord) => void} tell called while they are fitted
   * @param {() => boolean} wanted
   */
  async waitForLevels(tell, wanted) {
    while (wanted()) {
      const probes = await ask(`/api/models/${this.model.id}/probes`).catch((error) => {
        if (mayComeBack(error)) return null;
        throw error;
      });
      if (!probes) {
        await pause(UNTIL_AGAIN);
        continue;
      }
      this.probes = probes;
      tell(probes);
      if (probes.why) return;
      if (probes.ready) break;
      await pause(700);
    }
    for (let failures = 0; wanted();) {
      try {
        const found = await askOnce(`/api/models/${this.model.id}/images/${this.image.id}/levels`);
        const read = await Promise.all(found.layers.map(async (/** @type {{name: string, painting: string}} */ one) =>
          /** @type {[string, Uint8Array]} */ ([one.name, await unpack(one.painting)])));
        this.levels = new Map(read);
        return;
      } catch (error) {
        const measuring = error instanceof ApiError && error.status === 503;
        if (!measuring && !(mayComeBack(error) && ++failures < FAILURES)) throw error;
        await pause(measuring ? 700 : UNTIL_AGAIN);
      }
    }
  }

  /** @param {number} x @param {number} y what the pictures say there, without a request */
  at(x, y) {
    const index = y * this.width + x;
    const truth = this.truth ? this.truth[index] : null;
    return { x, y, label: this.painted.labels[index], probability: this.painted.certainty[index] / 255, truth };
  }
}

/** An address that holds no picture says why, when it is asked.
 * @param {import("./types.js").ImageRecord} image @returns {Promise<HTMLImageElement>} */
function pictureOf(image) {
  const path = `/api/images/${image.id}/picture.png`;
  return loadImage(addressed(path)).catch(() => ask(path));
}

/** @typedef {import("./state.js").State} State */
