// Client of /api/v1: retries 429 and 503 after the announced time, turns errors into messages.

import { sentence } from "./words.js";

const API = "/api/v1";
const MOST_RETRIES = 4;
const LONGEST_WAIT_S = 30;

export class ApiError extends Error {
  constructor(message, { status = 0, code = "", requestId = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, requestId });
  }
}

// JSON of a successful answer. onWait(seconds) is called before each retry of a 429 or 503.
export async function request(path, options) {
  const response = await accepted(path, options);
  return response.status === 204 ? null : response.json();
}

async function accepted(path, { signal, onWait, ...init } = {}) {
  for (let retry = 0; ; retry++) {
    const response = await answer(API + path, { signal, ...init });
    if (response.ok) return response;
    const busy = response.status === 429 || response.status === 503;
    if (!busy || retry === MOST_RETRIES) throw await errorOf(response);
    const seconds = secondsToWait(response, retry);
    onWait?.(seconds);
    await pause(seconds, signal);
  }
}

async function answer(url, init) {
  try {
    return await fetch(url, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not respond. Is “image-finder serve” still running?", { code: "unreachable" });
  }
}

async function errorOf(response) {
  const body = await response.json().catch(() => ({}));
  const { message = `The server answered with status ${response.status}.`, code = "", request_id: requestId = "" } = body.error ?? {};
  return new ApiError(sentence(message), { status: response.status, code, requestId });
}

function secondsToWait(response, retry) {
  const announced = Number(response.headers.get("Retry-After"));
  return Math.min(announced > 0 ? announced : 2 ** retry, LONGEST_WAIT_S);
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("replaced by a newer request", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1000);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

// query: body of POST /search; image: File of its image term, or null.
export function search(query, image, options) {
  return request("/search", { method: "POST", body: formOf(query, image), ...options });
}

// Regions that raise an image's score for terms: {blob: overlay, peak: 0 if no region does}
export async function explanation(id, terms, image, options) {
  const path = `/images/${encodeURIComponent(id)}/explanation`;
  const response = await accepted(path, { method: "POST", body: formOf({ terms }, image), ...options });
  return { blob: await response.blob(), peak: Number(response.headers.get("X-Peak-Contribution")) };
}

function formOf(query, image) {
  const form = new FormData();
  form.append("query", JSON.stringify(query));
  if (image) form.append("image", image, "image");
  return form;
}

export const facets = (options) => request("/facets", options);
export const info = (options) => request("/info", options);
export const image = (id, options) => request(`/images/${encodeURIComponent(id)}`, options);

export function labels(id, names, options) {
  const headers = { "Content-Type": "application/json" };
  return request("/labels", { method: "POST", headers, body: JSON.stringify({ id, labels: names }), ...options });
}

export function openSession(token) {
  return request("/session", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
}

// px: longer side of a thumbnail
export const thumbnailUrl = (id, px) => `${API}/images/${encodeURIComponent(id)}/thumbnail?px=${px}`;
export const viewUrl = (id) => `${API}/images/${encodeURIComponent(id)}/view`;
export const originalUrl = (id) => `${API}/images/${encodeURIComponent(id)}/original`;

// Why an <img> failed to load, which the element does not reveal. Resolves to "" if it loads now.
export async function reasonOfMissing(url) {
  try {
    for (let retry = 0; retry < MOST_RETRIES; retry++) {
      const response = await answer(url, {});
      if (response.ok) return "";
      if (response.status !== 429 && response.status !== 503) return (await errorOf(response)).message;
      await pause(secondsToWait(response, retry));
    }
    return "The server is busy.";
  } catch (error) {
    return error.message;
  }
}
