/**
 * The five questions, as tours. A step says something and sets the same controls that a visitor has; nothing else.
 *
 * @typedef {{seen: import("./seen.js").Seen, store: import("./state.js").Store}} Scene
 * @typedef {{say: (scene: Scene) => string, set: (scene: Scene) => Partial<import("./state.js").State>, show: (scene: Scene) => string,
 *   around?: (scene: Scene, at: {x: number, y: number}) => import("./types.js").Edit[]}} Step
 *   say: what is read now, with the numbers of this network; set: the controls; show: a selector of what to look at;
 *   around: what it brushes around a pixel, which an address may have chosen.
 *   Where valves or dabs are set that were not before, it is said only while they are so (guide.js); who is given a brush may add dabs
 * @typedef {{id: string, question: string, steps: Step[]}} Tour
 */
import { capital, figure, percent, stepOf } from "./dom.js";
import { scoresSentence } from "./speech.js";
import { LARGEST_RADIUS, strokesOn } from "./state.js";
import { needsContext, needsPlace, placedAtEdge, telling, finestSkip, first, agrees } from "./places.js";

/** Where every step begins, so that steps can be walked in any order. */
const STILL = { paths: {}, edits: [], look: /** @type {const} */ ("painting"), evidence: false, tool: /** @type {const} */ ("point") };

const node = (/** @type {string} */ layer) => `.network[data-slot="0"] .node[data-layer="${layer}"]`;
const valve = (/** @type {string | null} */ path) => `.network[data-slot="0"] .valve[data-path="${path}"]`;
const part = (/** @type {string} */ name) => `.network[data-slot="0"] ${name}`;

/** @param {Scene} scene @param {string} layer */
function reads({ seen }, layer) {
  const chances = seen.story?.readings[layer];
  if (!chances) return seen.probes?.why ? `no probe tells what it knows (${seen.probes.why})` : "its probe is still being fitted";
  const best = chances.indexOf(Math.max(...chances));
  return `its probe reads ${seen.looks[best].name} (${figure(chances[best])})`;
}

/** @param {Scene} scene @param {string} name */
const layer = ({ seen }, name) => /** @type {import("./types.js").Layer} */ (seen.model.layers.find((one) => one.name === name));

/** @param {Scene} scene @param {string} name */
function sees(scene, name) {
  const { field } = layer(scene, name);
  return field ? `${field[1]} × ${field[0]} pixels` : "the whole image";
}

/** @param {Scene} scene */
const painted = ({ seen, store }) => {
  const { label, probability } = seen.at(store.state.x, store.state.y);
  return `${seen.looks[label]?.name ?? "void"} (${figure(probability)})`;
};

/** @param {Scene} scene */
function scores({ seen }) {
  const { scores: now, full_scores: full, changed } = seen.painted.record;
  return (now && full && scoresSentence(now, full)) || `${percent(changed)} of the pixels changed their label.`;
}

/** Names of all skips, each silent. @param {Scene} scene */
const noSkips = ({ seen }) => Object.fromEntries(seen.model.paths.filter((one) => one.kind === "skip").map((one) => [one.name, /** @type {const} */ ("mean")]));

/** @param {Scene} scene */
const deepPath = ({ seen }) => seen.model.paths.find((one) => one.kind === "bottleneck")?.name ?? "bottleneck";

/** Of a grey dab of the ring, in pixels. @param {import("./seen.js").Seen} seen */
const ringRadius = (seen) => Math.min(LARGEST_RADIUS, Math.round(Math.max(6, Math.min(seen.width, seen.height) / 9)));

/** Grey dabs in a ring around the pixel: the window of the first level stays, and what lies farther out than the ring. @param {Scene} scene @param {{x: number, y: number}} at */
function ring({ seen }, at) {
  const { field } = layer({ seen, store: /** @type {any} */ (null) }, first(seen));
  const near = Math.hypot(...(field ?? [5, 5])) / 2 + 4; // a window has corners
  const radius = ringRadius(seen), far = near + radius;
  const dabs = Math.max(10, Math.ceil(Math.PI / Math.asin((0.7 * radius) / far))); // each overlaps the next, however long the ring is
  return strokesOn(Array.from({ length: dabs }, (_, turn) => ({
    kind: /** @type {const} */ ("grey"), radius,
    x: Math.round(at.x + far * Math.cos((2 * turn * Math.PI) / dabs)), y: Math.round(at.y + far * Math.sin((2 * turn * Math.PI) / dabs)),
  })), seen);
}

/** A dab far from the pixel. @param {Scene} scene */
function corner({ seen }) {
  const radius = Math.max(3, Math.round(Math.min(seen.width, seen.height) / 16));
  return strokesOn([{ kind: /** @type {const} */ ("grey"), x: radius + 1, y: radius + 1, radius }], seen);
}

/** @type {Tour[]} */
export const TOURS = [
  {
    id: "context", question: "What is context?",
    steps: [
      { show: () => part(".u"), set: (scene) => ({ ...STILL, ...needsContext(scene.seen), layer: first(scene.seen) }),
        say: ({ seen }) => "The image goes in at the left top; the painted image comes out at the right top. " + (seen.probes?.why
          ? "Each small picture on the U is the image as finely as that level's units stand. Started with labelled images (--data) that hold several classes, it would be painted from that level alone."
          : "Each small picture on the U is painted from that one level alone, by a weighted sum of its features: it is what the level knows by itself.") },
      { show: (scene) => node(first(scene.seen)), set: (scene) => ({ ...STILL, ...needsContext(scene.seen), layer: first(scene.seen) }),
        say: (scene) => `Take this pixel. At the top level one unit sees ${sees(scene, first(scene.seen))}: the small frame on the image. From no more than that, ${reads(scene, first(scene.seen))}. What so small a window tells is a low-level feature.` },
      { show: () => node("bottleneck"), set: (scene) => ({ ...STILL, ...needsContext(scene.seen), layer: "bottleneck" }),
        say: (scene) => `At the bottom of the U one unit sees ${sees(scene, "bottleneck")}, the large frame, and ${reads(scene, "bottleneck")}. What lies in the large frame and not in the small one is the context.` },
      { show: () => part(".image-side"), set: (scene) => ({ ...STILL, ...needsContext(scene.seen), layer: "bottleneck", edits: ring(scene, needsContext(scene.seen)) }), around: ring,
        say: (scene) => ring(scene, scene.store.state).length === 0 ? `There is no room for a ring around the small window on ${scene.seen.width} × ${scene.seen.height} pixels: nothing is hidden. On a larger image, what lies around it is.`
          : `Now a ring of ${2 * ringRadius(scene.seen)} pixels around it is hidden; ${layer(scene, first(scene.seen)).field ? "the small window is untouched, and so is" : "untouched is"} what lies farther out. The whole network paints it ${painted(scene)}; it would have painted ${before(scene)}. If that changed, the ring has a say here; if not, the rest is enough.` },
    ],
  },
  {
    id: "sight", question: "How far does it see?",
    steps: [
      { show: (scene) => node(first(scene.seen)), set: (scene) => ({ ...STILL, layer: first(scene.seen) }),
        say: (scene) => `The filters of the first level see ${sees(scene, first(scene.seen))}. Nothing outside the small frame can reach this unit: its receptive field. Move the pointer over the image; the frames follow.` },
      { show: () => part(".u"), set: (scene) => ({ ...STILL, layer: middleLayer(scene) }),
        say: (scene) => `Every pooling halves the grid, and a step on the coarser grid is twice as wide on the image. ${capital(layer(scene, middleLayer(scene)).title)} stands once in ${stepOf(layer(scene, middleLayer(scene)).stride)} pixels and sees ${sees(scene, middleLayer(scene))}.` },
      { show: () => node("bottleneck"), set: () => ({ ...STILL, layer: "bottleneck" }),
        say: (scene) => `The bottleneck sees ${sees(scene, "bottleneck")}, but stands only once in ${stepOf(layer(scene, "bottleneck").stride)} pixels: the white cell on its picture, for all of which it gives one answer.` },
      { show: () => part(".image-side"), set: (scene) => ({ ...STILL, tool: "grey", edits: corner(scene), look: "difference" }),
        say: (scene) => corner(scene).length === 0 ? `On ${scene.seen.width} × ${scene.seen.height} pixels there is no room for a dab in the corner.`
          : `A grey dab in the corner${scene.store.state.edits.length > 1 ? ", and yours" : ""}. ${border(scene)} Take the brush and try to change a pixel outside.` },
      { show: () => part(".pixel-panel"), set: () => ({ ...STILL, evidence: true }),
        say: (scene) => `What a pixel can see need not be what it uses. It can see ${sees(scene, "output")}. ${evidence(scene)} ${reach(scene)}` },
    ],
  },
  {
    id: "skips", question: "What would be lost without this skip?",
    steps: [
      { show: (scene) => valve(finestSkip(scene.seen) ?? deepPath(scene)), set: (scene) => ({ ...STILL, ...needsPlace(scene.seen) }),
        say: (scene) => (finestSkip(scene.seen) ? "A skip carries a level's features straight across the U. Its line is a valve: slide it to the left and less and less goes through; what is missing is filled with the mean over up to eight of the images that lie here, which says next to nothing of this one alone."
          : "This network has no skips: everything it paints passes through the bottleneck. Its one path is the valve at the bottom.") },
      { show: () => part(".change-panel"), set: (scene) => ({ ...STILL, look: "difference", paths: finestSkip(scene.seen) ? { [/** @type {string} */ (finestSkip(scene.seen))]: "mean" } : {} }),
        say: (scene) => (finestSkip(scene.seen) ? `${capital(finestSkip(scene.seen) ?? "")} brings only its mean. ${scores(scene)} The painting at the right shows what changed, the rest is pale.` : "There is no skip to silence here. Choose another model at the top, and compare.") },
      { show: () => valve("bottleneck"), set: (scene) => ({ ...STILL, look: "difference", paths: { [deepPath(scene)]: "mean" } }),
        say: (scene) => `${finestSkip(scene.seen) ? "Now the skips pass and the bottleneck is silent" : "Now the only path is silent: nothing of this image comes through"}. ${scores(scene)}${scene.seen.painted.record.full_scores ? " Compare the two bars: interior asks what, boundary asks where." : ""}` },
      { show: () => part(".painting-side"), set: (scene) => ({ ...STILL, paths: noSkips(scene) }),
        say: (scene) => `${finestSkip(scene.seen) ? "All skips are silent" : "There are no skips"}: only the bottleneck speaks. ${scores(scene)} What is painted now came through it alone.` },
      { show: () => ".worth-panel", set: () => ({ ...STILL }),
        say: ({ seen }) => (seen.truth ? "Everything passes again. Below, each path's worth on this image over all orders in which paths can join (Shapley values). These figures ablate the trained network; a network trained without the skip learns to do without, and often loses less."
          : "Everything passes again. Of an image with its mask (--data) it would stand below what each path is worth, over all orders in which paths can join (Shapley values).") },
    ],
  },
  {
    id: "pixel", question: "Why this pixel?",
    steps: [
      { show: () => part(".pixel-panel"), set: (scene) => ({ ...STILL, ...needsPlace(scene.seen) }),
        say: (scene) => `${placedAtEdge(scene) ? "A pixel at an edge" : "This pixel"}, painted ${painted(scene)}. Four things can be asked: what the levels know here, what each path brings, what the pixels around say, and what else it could have been.` },
      { show: () => part(".u"), set: (scene) => ({ ...STILL, ...needsPlace(scene.seen), layer: first(scene.seen) }),
        say: (scene) => `Follow the bars under the pictures down the left side and up the right: ${story(scene)}` },
      { show: () => part(".cuts"), set: (scene) => ({ ...STILL, ...needsPlace(scene.seen) }),
        say: (scene) => `What becomes of it without each path: ${cuts(scene)}` },
      { show: () => part(".image-side"), set: (scene) => ({ ...STILL, ...needsPlace(scene.seen), evidence: true }),
        say: (scene) => `The evidence, pixel by pixel. ${evidence(scene)} The pieces add up to the difference of the two classes' logits, less what it is for the mean image${missing(scene)}.` },
    ],
  },
  {
    id: "presence", question: "What if it only had to say yes or no?",
    steps: [
      { show: () => node("bottleneck"), set: () => ({ ...STILL, layer: "bottleneck" }),
        say: (scene) => `To paint, a network must say what and where. To say only "is there one?", place is not needed. ${deepAgrees(scene)}` },
      { show: () => ".presence-panel", set: () => ({ ...STILL, layer: "bottleneck" }),
        say: ({ seen }) => `So throw the rest of the place away: average the bottleneck's features, and ask one probe for yes or no. That is a classifier: the left half of a U, and an average. ${seen.probes?.why ? `Here there is none (${seen.probes.why}).` : "Below is what it answers for this image."}` },
      { show: () => part(".painting-side"), set: (scene) => ({ ...STILL, layer: "bottleneck", paths: noSkips(scene) }),
        say: () => "And this is what the right half adds even without any skip: the bottleneck's answer, spread out again. For yes or no, it was not asked." },
      { show: () => part(".u"), set: () => ({ ...STILL, layer: "bottleneck" }),
        say: ({ seen }) => `${finestSkip(seen) ? "Now the skips pass again" : "This network has no skips: its painting is as before"}. A probe that says yes or no uses nothing of the right half of the U; the painting does. Turn the valves yourself, or choose another question.` },
    ],
  },
];

/** @param {Scene} scene */
const before = ({ seen, store }) => {
  const at = store.state.y * seen.width + store.state.x;
  return `${seen.looks[seen.untouched.labels[at]]?.name ?? "void"} (${figure(seen.untouched.certainty[at] / 255)})`;
};

/** @param {Scene} scene */
function deepAgrees({ seen }) {
  const share = agrees(seen, "bottleneck");
  if (share === null) return seen.probes?.why ? `What the bottleneck knows can't be told here (${seen.probes.why}).` : "What the bottleneck knows is still being measured.";
  return `Painted from the bottleneck alone, ${percent(share)} of the pixels are as in the ${seen.truth ? "mask" : "answer"}: what, and coarsely where.`;
}

/** @param {Scene} scene */
function missing({ seen }) {
  return seen.evidence && seen.evidence.completeness > 0.01 ? ` (here they miss ${percent(seen.evidence.completeness)} of how far it moves on the way${seen.evidence.rough ? ": take the squares as rough" : ""})` : "";
}

/** @param {Scene} scene */
function middleLayer({ seen }) {
  const down = seen.model.layers.filter((one) => one.role === "encoder");
  return down[Math.min(down.length - 1, Math.ceil(down.length / 2))]?.name ?? "bottleneck";
}

/** @param {Scene} scene */
function border({ seen }) {
  const edited = seen.painted.record.edited;
  const { length } = seen.painted.edits, dab = length > 1 ? "the dabs" : "the dab";
  if (!edited) return `The dashed border is drawn by arithmetic: beyond it ${dab} can change nothing.`;
  const [y0, y1, x0, x1] = edited.window;
  const whole = y0 <= 0 && x0 <= 0 && y1 >= seen.height && x1 >= seen.width;
  if (whole) return "Here the border around what the brush can change is the whole image.";
  return `${length > 1 ? "They" : "It"} can change pixels up to x ${x1 - 1} and y ${y1 - 1}, the dashed border, and beyond it ${edited.outside_changed} labels changed.`;
}

/** @param {Scene} scene */
function evidence({ seen }) {
  const found = seen.evidence;
  if (!found) return "The evidence is being gathered.";
  if (!found.half || !found.most) return "There is no evidence: the answer does not depend on the image.";
  return `Gold speaks for ${seen.looks[found.prediction].name}, teal for ${seen.looks[found.rival].name}. Half of it lies in a square of ${Math.round(found.half)} pixels around this one, 95 % in one of ${Math.round(found.most)}.`;
}

/** How the evidence compares with the window. @param {Scene} scene */
function reach(scene) {
  const { seen } = scene;
  if (!seen.evidence?.most) return "";
  const side = Math.min(Math.max(seen.width, seen.height), Math.max(...(layer(scene, "output").field ?? [Infinity])));
  return `The larger square is ${seen.evidence.most < side / 2 ? "less than" : "at least"} half as wide as what it can see of this image.`;
}

/** @param {Scene} scene */
function story({ seen }) {
  const readings = seen.story?.readings ?? {};
  const told = seen.model.layers.filter((one) => readings[one.name]?.length && one.role !== "pixel").map((one) => {
    const chances = readings[one.name];
    return `${one.title} ${seen.looks[chances.indexOf(Math.max(...chances))].name}`;
  });
  if (told.length) return `${told.join(", ")}.`;
  return seen.probes?.why ? `no probe tells what the levels know (${seen.probes.why}).` : "the probes are still being fitted.";
}

/** @param {Scene} scene */
function cuts({ seen }) {
  const found = seen.story;
  if (!found) return "being asked.";
  const told = found.cuts.map((cut) => `without ${cut.absent.join(" and ")} ${seen.looks[cut.label].name}`);
  const flip = found.flip ? ` The smallest cut that changes it: ${found.flip.absent.join(" and ")}.` : " No cut that was tried changes it.";
  return `${told.join(", ")}.${flip}`;
}
