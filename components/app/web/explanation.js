// "Explain match": colours the regions of the open image that raise its score.

import { explanation } from "./api.js";
import { byId } from "./words.js";

export class Explanation {
  // query(): {terms, image, words} or null without a search; show(url): shows the overlay;
  // restore(): shows the image again; say(words): shows a note over the image
  constructor(actions) {
    this.actions = actions;
    this.id = "";
    this.url = "";
    this.running = null; // set while an explanation is computed or shown
    byId("explain").addEventListener("click", () => this.toggle());
  }

  // Switches to another image, or none (""), without explanation.
  reset(id) {
    this.running?.abort();
    this.running = null;
    this.id = id;
    URL.revokeObjectURL(this.url);
    byId("explain").hidden = this.actions.query() === null;
    this.#state({ pressed: false });
  }

  toggle() {
    if (byId("explain").hidden) return;
    if (!this.running) {
      this.#compute();
      return;
    }
    this.reset(this.id);
    this.actions.restore();
  }

  async #compute() {
    const running = (this.running = new AbortController());
    const { terms, image, words } = this.actions.query();
    this.#state({ pressed: true, busy: true });
    this.actions.say("Finding regions that raise the score …");
    try {
      const { blob, peak } = await explanation(this.id, terms, image, { signal: running.signal, say: this.actions.say });
      if (running.signal.aborted) return;
      this.url = URL.createObjectURL(blob);
      const none = `No region raises the score for ${words}, so none is coloured.`;
      this.#state({ pressed: true, note: peak > 0 ? `Coloured regions raise the score for ${words}.` : none, legend: peak > 0 });
      this.actions.show(this.url);
    } catch (error) {
      if (running.signal.aborted) return;
      this.reset(this.id);
      this.actions.restore();
      this.actions.say(`Could not explain: ${error.message}`);
    }
  }

  #state({ pressed, busy = false, note = "", legend = false }) {
    byId("explain").setAttribute("aria-pressed", String(pressed));
    byId("explain").setAttribute("aria-busy", String(busy));
    byId("viewer").classList.toggle("explaining", busy);
    byId("explain-note").textContent = note;
    byId("legend").hidden = !legend;
  }
}
