// Adds a folder to the library, if the page was opened with the key that the server has printed.

import { addFolder, folders } from "./api.js";
import { withToken } from "./dialogs.js";
import { byId } from "./words.js";

const KEY = "image-finder-folder-key"; // kept until the tab is closed
const CHECK_MS = 1500;

export class FolderForm {
  constructor() {
    this.key = takeKey();
    for (const id of ["add-folder", "add-first-folder"]) byId(id).addEventListener("click", () => this.#open());
    byId("cancel-folder").addEventListener("click", () => byId("folder-dialog").close());
    byId("folder-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#add(byId("folder-path").value);
    });
    if (this.key) this.#offer();
  }

  async #offer() {
    const { allowed, suggested } = await withToken(() => folders(this.key)).catch(() => ({ allowed: false }));
    for (const id of ["add-folder", "add-first-folder"]) byId(id).hidden = !allowed;
    if (allowed) byId("folder-path").value = suggested;
  }

  #open() {
    byId("folder-error").textContent = "";
    byId("folder-dialog").showModal();
    byId("folder-path").select();
  }

  async #add(path) {
    byId("folder-error").textContent = "";
    byId("add").disabled = true;
    try {
      let state = await addFolder(this.key, path);
      byId("folder-dialog").close(); // its progress is shown as of any update
      while (state.running) {
        await new Promise((resolve) => setTimeout(resolve, CHECK_MS));
        state = await folders(this.key);
      }
      if (state.failure) throw new Error(state.failure);
    } catch (error) {
      if (!byId("folder-dialog").open) this.#open();
      byId("folder-error").textContent = error.message;
    } finally {
      byId("add").disabled = false;
    }
  }
}

// The key of the address, which is removed from it; else the one from before a reload.
function takeKey() {
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  try {
    if (given) sessionStorage.setItem(KEY, given);
    if (given) history.replaceState(history.state, "", location.pathname + location.search);
    return given ?? sessionStorage.getItem(KEY) ?? "";
  } catch {
    return given ?? ""; // storage is disabled: the key is lost with a reload
  }
}
