// Recent searches of this browser, newest first; kept in its local storage, never sent.

const KEY = "image-finder-recent";
const MOST = 8;

export function recent() {
  try {
    const list = JSON.parse(localStorage.getItem(KEY));
    return Array.isArray(list) ? list.filter((text) => typeof text === "string").slice(0, MOST) : [];
  } catch {
    return []; // storage is disabled, or holds something else
  }
}

export function remember(text) {
  if (text) store([text, ...recent().filter((other) => other !== text)].slice(0, MOST));
}

export const forget = () => store([]);

function store(list) {
  try {
    localStorage.setItem(KEY, JSON.stringify(list));
  } catch {
    // storage is disabled: searches are not remembered
  }
}
