// The help and the token dialog.

import { openSession } from "./api.js";
import { byId } from "./words.js";

export function showKeys() {
  if (!byId("keys").open) byId("keys").showModal();
}

let dialogPromise = null;

// Resolves when the server accepts a token. Simultaneous callers share one dialog.
export function requestToken() {
  dialogPromise ??= new Promise((resolve) => {
    const dialog = byId("token");
    const form = byId("token-form");
    const field = byId("token-text");
    const stay = (event) => event.preventDefault(); // the page is useless without a token
    dialog.addEventListener("cancel", stay);
    const submit = async (event) => {
      event.preventDefault();
      byId("token-error").textContent = "";
      try {
        await openSession(field.value.trim());
      } catch (error) {
        byId("token-error").textContent = error.status === 401 ? "Wrong token." : error.message;
        field.select();
        return;
      }
      field.value = "";
      form.removeEventListener("submit", submit);
      dialog.removeEventListener("cancel", stay);
      dialog.close();
      dialogPromise = null;
      resolve();
    };
    form.addEventListener("submit", submit);
    dialog.showModal();
    field.focus();
  });
  return dialogPromise;
}

// Runs `call`, requesting the token whenever the server requires it.
export async function withToken(call) {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (error.status !== 401) throw error;
      await requestToken();
    }
  }
}
