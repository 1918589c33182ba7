/** Taking away what is seen: a picture, a JSON of the numbers, and the address. */

const GAP = 16;
const HEAD = 28;

/** @param {import("./network-view.js").NetworkView[]} views  @param {string} title */
export async function keepPicture(views, title) {
  const panels = views.flatMap((view, at) => [...(at === 0 ? [["image", view.image]] : []), [view.seen?.model.name ?? "", view.painting]])
    .map(([name, panel]) => ({ name: /** @type {string} */ (name), panel: /** @type {import("./picture-panel.js").PicturePanel} */ (panel) }));
  const [width, height] = panels[0].panel.size;
  const zoom = Math.max(1, Math.round(512 / Math.max(width, height)));
  const sheet = new OffscreenCanvas(panels.length * (width * zoom + GAP) + GAP, height * zoom + 2 * GAP + HEAD);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (sheet.getContext("2d"));
  context.fillStyle = "#fbfaf7";
  context.fillRect(0, 0, sheet.width, sheet.height);
  context.imageSmoothingEnabled = false;
  context.font = "16px sans-serif";
  panels.forEach(({ name, panel }, at) => {
    const x = GAP + at * (width * zoom + GAP);
    context.fillStyle = "#1f2328";
    context.fillText(name, x, GAP + 12);
    const greyed = panel.surface.classList.contains("greyed");
    context.filter = greyed ? getComputedStyle(panel.canvas).filter : "none";
    context.drawImage(panel.canvas, x, GAP + HEAD, width * zoom, height * zoom);
    context.filter = "none";
    if (!panel.over.hidden) context.drawImage(panel.over, x, GAP + HEAD, width * zoom, height * zoom);
  });
  save(await sheet.convertToBlob({ type: "image/png" }), `${title}.png`);
}

/** @param {import("./network-view.js").NetworkView[]} views @param {import("./state.js").State} state @param {string} version @param {string} title */
export function keepNumbers(views, state, version, title) {
  const record = { whatwhere: version, address: location.origin + location.pathname + location.hash, image: views[0].seen?.image ?? null, pixel: { x: state.x, y: state.y },
    edits: state.edits, networks: views.map((view) => networkNumbers(view, state)) };
  save(new Blob([JSON.stringify(record, null, 1)], { type: "application/json" }), `${title}.json`);
}

/** @param {import("./network-view.js").NetworkView} view @param {import("./state.js").State} state */
function networkNumbers(view, state) {
  const seen = view.seen;
  if (!seen) return null;
  const { scores, full_scores, changed, edited } = seen.painted.record;
  const windows = Object.fromEntries(seen.model.layers.map((one) => [one.name, seen.windows.window(one.name, state.x, state.y)]));
  const { evidence: _, ...evidence } = seen.evidence ?? { evidence: null };
  return { model: seen.model, paths: seen.painted.paths, painting: { changed, scores, full_scores, edited }, pixel: seen.story?.x === state.x && seen.story.y === state.y ? seen.story : null, windows, evidence, levels: seen.probes?.levels ?? null };
}

/** @param {Blob} blob @param {string} name */
function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
