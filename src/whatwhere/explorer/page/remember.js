/** What a visitor chose, for later visits. A browser that keeps no data of sites throws already where it is asked. */

/** @param {string} key */
export function remembered(key) {
  try { return localStorage.getItem(`whatwhere ${key}`); } catch { return null; }
}

/** @param {string} key @param {string} choice */
export function remember(key, choice) {
  try { localStorage.setItem(`whatwhere ${key}`, choice); } catch { /* it holds for this visit */ }
}
