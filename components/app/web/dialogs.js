// The list of keys and the question for the token.

import { openSession } from "./api.js";
import { byId } from "./words.js";

export function showKeys() {
  if (!byId("keys").open) byId("keys").showModal();
}

let asking = null;

// Resolves when the server has taken a token; asks again until it does. Several callers share one question.
export function askToken() {
  asking ??= new Promise((resolve) => {
    const dialog = byId("token");
    const form = byId("token-form");
    const field = byId("token-text");
    const stay = (event) => event.preventDefault(); // nothing can be searched without it
    dialog.addEventListener("cancel", stay);
    const submit = async (event) => {
      event.preventDefault();
      byId("token-error").textContent = "";
      try {
        await openSession(field.value.trim());
      } catch (error) {
        byId("token-error").textContent = error.status === 401 ? "This token is not the right one." : error.message;
        field.select();
        return;
      }
      field.value = "";
      form.removeEventListener("submit", submit);
      dialog.removeEventListener("cancel", stay);
      dialog.close();
      asking = null;
      resolve();
    };
    form.addEventListener("submit", submit);
    dialog.showModal();
    field.focus();
  });
  return asking;
}

// Answer of `call`, asking for the token as often as the server wants one.
export async function withToken(call) {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (error.status !== 401) throw error;
      await askToken();
    }
  }
}
