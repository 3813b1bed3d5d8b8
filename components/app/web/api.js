// Talks to /api/v1: one request at a time per caller, refusals retried when the server says when, errors as sentences.

const API = "/api/v1";
const MOST_RETRIES = 4;
const LONGEST_WAIT_S = 30;

export class ApiError extends Error {
  constructor(message, { status = 0, code = "", requestId = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, requestId });
  }
}

// Body of a good answer. onWait(seconds) is called before each retry of a 429 or 503.
export async function request(path, { signal, onWait, ...init } = {}) {
  for (let retry = 0; ; retry++) {
    const response = await answer(API + path, { signal, ...init });
    if (response.ok) return response.status === 204 ? null : response.json();
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
    throw new ApiError("The finder does not answer. Is “image-finder serve” still running?", { code: "unreachable" });
  }
}

async function errorOf(response) {
  const body = await response.json().catch(() => ({}));
  const { message = `The finder answered ${response.status}.`, code = "", request_id: requestId = "" } = body.error ?? {};
  return new ApiError(message, { status: response.status, code, requestId });
}

function secondsToWait(response, retry) {
  const told = Number(response.headers.get("Retry-After"));
  return Math.min(told > 0 ? told : 2 ** retry, LONGEST_WAIT_S);
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

// query: what POST /search takes; picture: the File its term names, or null.
export function search(query, picture, options) {
  const body = new FormData();
  body.append("query", JSON.stringify(query));
  if (picture) body.append("picture", picture, "picture");
  return request("/search", { method: "POST", body, ...options });
}

export const facets = (options) => request("/facets", options);
export const info = (options) => request("/info", options);
export const picture = (id, options) => request(`/pictures/${encodeURIComponent(id)}`, options);

export function labels(id, names, options) {
  const headers = { "Content-Type": "application/json" };
  return request("/labels", { method: "POST", headers, body: JSON.stringify({ id, labels: names }), ...options });
}

export function openSession(token) {
  return request("/session", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
}

// px: longer side of a thumbnail
export const thumbnailUrl = (id, px) => `${API}/pictures/${encodeURIComponent(id)}/thumbnail?px=${px}`;
export const viewUrl = (id) => `${API}/pictures/${encodeURIComponent(id)}/view`;
export const originalUrl = (id) => `${API}/pictures/${encodeURIComponent(id)}/original`;
export const explanationUrl = (id) => `${API}/pictures/${encodeURIComponent(id)}/explanation`;

// Why an <img> stayed empty: the element itself does not tell. Resolves to "" once the picture is there after all.
export async function reasonOfMissing(url) {
  try {
    for (let retry = 0; retry < MOST_RETRIES; retry++) {
      const response = await answer(url, {});
      if (response.ok) return "";
      if (response.status !== 429 && response.status !== 503) return (await errorOf(response)).message;
      await pause(secondsToWait(response, retry));
    }
    return "The finder is busy.";
  } catch (error) {
    return error.message;
  }
}
