/**
 * The records that the server sends, as JSDoc types. No code: editors read it, browsers find nothing to run.
 *
 * Coordinates: x is the column, y the row, in pixels of the image as shown. A window is a half-open span [start, stop).
 *
 * @typedef {{id: number, name: string, color: string}} ClassRecord
 * @typedef {{name: string, title: string, role: "pixel"|"encoder"|"bottleneck"|"decoder"|"output", level: number,
 *   stride: [number, number], channels: number, field: [number, number] | null}} Layer
 * @typedef {{name: string, title: string, level: number, kind: "skip"|"bottleneck", from: string, to: string}} Path
 * @typedef {{id: string, name: string, title: string, classes: ClassRecord[], channels: number, parameters: number,
 *   tileable: boolean, global: string | null, layers: Layer[], paths: Path[]}} Model
 * @typedef {{id: string, name: string, width: number, height: number, truth: boolean,
 *   whole: {width: number, height: number} | null, channels: number, dtype: string, thumb: string}} ImageRecord
 *   whole: of which this is the middle
 * @typedef {{version: string, key: string, models: {id: string, name: string, title: string, parameters: number}[],
 *   images: ImageRecord[], limits: {upload_bytes: number}}} Session
 * @typedef {{grid: [number, number], rows: [number, number][], columns: [number, number][],
 *   cells: {rows: number[], columns: number[]}}} LayerGeometry
 * @typedef {{width: number, height: number, layers: Record<string, LayerGeometry>}} Geometry
 * @typedef {"pass" | "cut" | "mean" | number} Hold  what happens to a path; a number fades it, 1 passes, 0 is its mean
 * @typedef {{kind: "grey"|"blur"|"paste", x: number, y: number, radius: number, from?: [number, number]}} Edit
 * @typedef {{interior: number | null, boundary: number | null, iou: Record<string, number | null>}} Scores
 * @typedef {{labels: string, probability: string, changed: number, scores: Scores | null, full_scores: Scores | null,
 *   seconds: number, picture?: string, edited: null | {window: [number, number, number, number],
 *   outside_changed: number, largest_outside: number}}} PaintingRecord
 * @typedef {{absent: string[], label: number, chance: number, probability: number}} Cut  chance: of the label; probability: of
 *   the class that is painted with everything there
 * @typedef {{prediction: number, probability: number, rival: number, probabilities: number[], truth: number | null,
 *   readings: Record<string, number[]>, untouched: number, cuts: Cut[], flip: Cut | null}} PixelRecord
 *   untouched: the class where every path passes, from which the cuts differ or not
 * @typedef {{evidence: string, scale: number, completeness: number, rough: boolean, half: number | null, most: number | null, prediction: number,
 *   rival: number}} EvidenceRecord
 * @typedef {{value: number | null, low: number | null, high: number | null}} Measured
 * @typedef {{ready: boolean, share: number, levels: Record<string, {what: Measured, where: Measured}> | null,
 *   why: string | null}} ProbesRecord
 * @typedef {{channel: number, picture: string, patches: {x: number, y: number, picture: string}[]}} FeatureMap
 */
export {};
