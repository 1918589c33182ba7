/** Pictures to be shown, and numbers of which there is one a pixel. */
import { VOID } from "./colours.js";

/** @param {string} address `data:` or a path @returns {Promise<HTMLImageElement>} */
export async function loadImage(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}

/**
 * One byte a pixel. Not by way of a picture: to hide who looks, some browsers change what a canvas gives back.
 *
 * @param {string} packed  deflated, as base64 @returns {Promise<Uint8Array>}
 */
export async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(inflated).arrayBuffer());
}

/** Share of each label of the pixels that count. @param {Uint8Array} labels @returns {Map<number, number>} largest first */
export function shares(labels) {
  const counts = new Uint32Array(256);
  for (const id of labels) counts[id]++;
  const counted = labels.length - counts[VOID];
  const found = [...counts.entries()].filter(([id, count]) => id !== VOID && count > 0).sort((a, b) => b[1] - a[1]);
  return new Map(found.map(([id, count]) => [id, count / counted]));
}

/** Share of the pixels that count with equal labels, if any count.
 * @param {Uint8Array} labels @param {Uint8Array} answer where void counts for nothing @returns {number | null} */
export function agreement(labels, answer) {
  let same = 0, counted = 0;
  for (let at = 0; at < answer.length; at++) {
    if (answer[at] === VOID) continue;
    counted++;
    if (labels[at] === answer[at]) same++;
  }
  return counted ? same / counted : null;
}

/** How large an image is, and what of it can't be seen. @param {import("./types.js").ImageRecord} image */
export function factsOf({ width, height, whole, channels, dtype }) {
  const bits = dtype.replace(/\D/g, "");
  const shown = channels === 2 ? "2 channels, as red and green" : channels > 3 ? `channels 1–3 of ${channels} shown` : "";
  return [`${width} × ${height}${whole ? ` (middle of ${whole.width} × ${whole.height})` : ""}`, shown,
    dtype === "uint8" || !bits ? "" : `${bits} bit${dtype.startsWith("float") ? " float" : ""}, stretched`].filter(Boolean).join(" · ");
}
