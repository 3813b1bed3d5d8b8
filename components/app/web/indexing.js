// Progress of the library: shows what is being indexed, and reports when more images can be searched.

import { progress } from "./api.js";
import { byId, images, whole } from "./words.js";

const BUSY_MS = 2000;
const IDLE_MS = 15_000;

// Calls changed(answer, isFirst) at the start and with every new index. Asks rarely while nothing is indexed, and not in a hidden tab.
export function watchIndexing(withToken, changed) {
  let generation = null;
  let timer = null;
  async function check() {
    clearTimeout(timer);
    let pause = IDLE_MS;
    if (!document.hidden) {
      try {
        const answer = await withToken(progress);
        show(answer);
        if (answer.generation !== generation) changed(answer, generation === null);
        generation = answer.generation;
        if (answer.indexing || !answer.generation) pause = BUSY_MS;
      } catch {
        byId("indexing").hidden = true; // the next search reports the error
      }
    }
    clearTimeout(timer);
    timer = setTimeout(check, pause);
  }
  document.addEventListener("visibilitychange", () => document.hidden || check());
  check();
}

function show({ indexing }) {
  byId("indexing").hidden = !indexing;
  if (!indexing) return;
  const { done, total, remaining_s: seconds } = indexing;
  byId("indexing-bar").max = total;
  byId("indexing-bar").value = done;
  byId("indexing-words").textContent = `Indexing ${whole(done)} of ${images(total)}${seconds ? `, about ${duration(seconds)}` : ""}`;
}

function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}
