// "Is it a ...?": probabilities of given labels for one image, as bars.

import { labels as askLabels } from "./api.js";
import { byId, element } from "./words.js";

export class LabelForm {
  constructor() {
    this.id = "";
    this.running = null;
    byId("labels").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
  }

  // Another image: the words stay in the field, the answer goes.
  show(id) {
    this.running?.abort();
    this.id = id;
    this.#say("");
  }

  async #ask() {
    const names = [...new Set(byId("label-text").value.split(",").map((name) => name.trim()).filter(Boolean))];
    if (names.length < 2) {
      this.#say("Name at least two, with commas between them: they are compared with each other.");
      return;
    }
    this.running?.abort();
    const running = (this.running = new AbortController());
    this.#say("Asking …");
    try {
      const onWait = (seconds) => this.#say(`The finder is busy; asking again in ${Math.ceil(seconds)} s.`);
      const answer = await askLabels(this.id, names, { signal: running.signal, onWait });
      if (running.signal.aborted) return;
      this.#say("Shares among these words only; none of them may be right.");
      byId("label-list").replaceChildren(...answer.labels.map(barOf));
    } catch (error) {
      if (error.name !== "AbortError") this.#say(error.message);
    }
  }

  #say(words) {
    byId("label-note").textContent = words;
    byId("label-list").replaceChildren();
  }
}

function barOf({ label, probability, score }) {
  const fill = element("span", { className: "bar-fill" });
  fill.style.setProperty("--share", probability.toFixed(4));
  const percent = `${(100 * probability).toFixed(probability < 0.1 ? 1 : 0)} %`;
  return element(
    "li",
    { title: `cosine ${score.toFixed(3)}` },
    element("span", { className: "bar-name" }, label),
    element("span", { className: "bar-track", "aria-hidden": "true" }, fill),
    element("span", { className: "number" }, percent),
  );
}
