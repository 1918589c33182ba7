/** Pictures that carry numbers: PNGs of raw labels or shares, decoded by the browser and read back from a canvas. */

/** @param {string} address `data:` or a path @returns {Promise<HTMLImageElement>} */
export async function loadImage(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}

/** One byte a pixel. @param {string} address of an 8-bit grey PNG @returns {Promise<Uint8Array>} */
export async function readGrey(address) {
  const image = await loadImage(address);
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (
    canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" })
  );
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const grey = new Uint8Array(data.length / 4);
  for (let at = 0; at < grey.length; at++) grey[at] = data[4 * at];
  return grey;
}

/** Share of the pixels of each label. @param {Uint8Array} labels @returns {Map<number, number>} largest first */
export function shares(labels) {
  const counts = new Uint32Array(256);
  for (const id of labels) counts[id]++;
  const found = [...counts.entries()].filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]);
  return new Map(found.map(([id, count]) => [id, count / labels.length]));
}

/** Share of the pixels with equal labels. @param {Uint8Array} one @param {Uint8Array} other */
export function agreement(one, other) {
  let same = 0;
  for (let at = 0; at < one.length; at++) if (one[at] === other[at]) same++;
  return same / one.length;
}
