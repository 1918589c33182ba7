/** Everything that is asked of the server. An answer that is an error becomes an `ApiError` with its three parts. */

/** What went wrong, in the words of the server: what was given, what was expected, what to do. */
export class ApiError extends Error {
  /** @param {number} status @param {{given: string, expected?: string, remedy?: string}} parts */
  constructor(status, parts) {
    super(parts.given);
    this.status = status;
    this.given = parts.given;
    this.expected = parts.expected || "";
    this.remedy = parts.remedy || "";
  }
}

/** What is said when no answer comes at all. */
export const SILENT = "the explorer does not answer";

/** Whether the same question may be answered later: nobody was there, or what was there broke. @param {unknown} error */
export const mayComeBack = (error) => error instanceof ApiError && (error.status === 0 || error.status >= 500);

let desk = "";
let heard = () => {};

/** What to do at every answer. @param {() => void} act */
export function whenHeard(act) { heard = act; }

/** What ids mean: on a server that was started anew they mean something else. @param {string} key */
export function hold(key) { desk = key; }

/** The address of a picture, to which no header can be added. @param {string} path */
export const addressed = (path) => (desk ? `${path}?desk=${encodeURIComponent(desk)}` : path);

/** Tells this window from others. */
const CLIENT = Array.from(crypto.getRandomValues(new Uint32Array(2)), (n) => n.toString(36)).join("");

/**
 * @param {string} path
 * @param {{body?: any, bytes?: Blob, signal?: AbortSignal, slot?: number}} [given] slot: which of two networks asks; a newer
 *   question for evidence takes the place of an older one of the same slot of the same window
 * @returns {Promise<any>}
 */
export async function ask(path, given = {}) {
  /** @type {Record<string, string>} */
  const headers = { "X-Client": `${CLIENT}-${given.slot ?? 0}`, ...(desk ? { "X-Desk": desk } : {}) };
  let body;
  if (given.bytes) body = given.bytes;
  else if (given.body !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(given.body);
  }
  let response;
  try {
    response = await fetch(path, { method: body === undefined ? "GET" : "POST", headers, body, signal: given.signal });
  } catch (error) {
    if (given.signal?.aborted) throw error;
    throw new ApiError(0, {
      given: SILENT,
      expected: "the program that opened this page to be running",
      remedy: "look at the terminal where whatwhere explore runs; start it again and reload this page",
    });
  }
  heard();
  const answer = await response.json().catch(() => null);
  if (response.ok && answer !== null) return answer;
  const parts = answer?.error?.given ? answer.error : { given: `the explorer answered ${response.status} without words` };
  const failure = new ApiError(response.status, parts);
  failure.share = answer?.share ?? null;
  failure.later = Number(response.headers.get("Retry-After")) || 0;
  throw failure;
}

/** @type {Map<string, Promise<any>>} */
const kept = new Map();
const MOST_KEPT = 64;

/** As `ask`, but what was answered once is kept: models, geometry and pictures of levels do not change. @param {string} path */
export function askOnce(path) {
  let answer = kept.get(path);
  if (!answer) {
    answer = ask(path).catch((error) => { kept.delete(path); throw error; });
    kept.set(path, answer);
    if (kept.size > MOST_KEPT) kept.delete(/** @type {string} */ (kept.keys().next().value));
  }
  return answer;
}

/**
 * Newest wins: at most one request is under way, and of those that wait only the last is sent. A slider that moves
 * faster than the network paints so shows every painting there is time for, and ends on the last.
 */
export class Newest {
  constructor() {
    this.busy = false;
    /** @type {(() => Promise<void>) | null} */
    this.next = null;
  }

  /** @param {() => Promise<void>} act must not throw */
  async run(act) {
    this.next = act;
    if (this.busy) return;
    this.busy = true;
    while (this.next) {
      const now = this.next;
      this.next = null;
      await now();
    }
    this.busy = false;
  }
}

/** @param {number} milliseconds */
export const pause = (milliseconds) => new Promise((done) => { setTimeout(done, milliseconds); });
