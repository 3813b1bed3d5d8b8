// Images to search by: chosen, dropped or pasted; kept in this tab's memory under a key.

import { byId } from "./words.js";

const HEAVY_BYTES = 1_500_000; // smaller files are sent unchanged
const LONGER_SIDE_PX = 1024; // the model uses 224 to 384 px

const files = new Map();

// {body: Blob to send, name, preview: URL for <img>}, or null after a reload
export const uploadOf = (key) => files.get(key) ?? null;

// Calls found(key) for an image, refused(message) for anything else.
export function watchForImages(found, refused) {
  const take = async (list) => {
    const given = [...list];
    const file = given.find((each) => each.type.startsWith("image/") || /\.(heic|heif|avif)$/iu.test(each.name));
    if (file) found(await keep(file));
    else if (given.length) refused(`“${given[0].name}” is not an image.`);
  };
  byId("choose").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", (event) => {
    take(event.target.files);
    event.target.value = ""; // allows choosing the same file again
  });
  addEventListener("paste", (event) => {
    if (!event.clipboardData?.files.length) return; // text is pasted normally
    event.preventDefault();
    take(event.clipboardData.files);
  });
  watchDrops(take);
}

function watchDrops(take) {
  const zone = byId("drop-zone");
  const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let depth = 0; // dragenter of a child comes before dragleave of its parent
  const on = (name, act) => addEventListener(name, (event) => carriesFiles(event) && act(event));
  const enter = (levels) => {
    depth = Math.max(0, levels);
    zone.hidden = depth === 0;
  };
  on("dragenter", () => enter(depth + 1));
  on("dragleave", () => enter(depth - 1));
  on("dragover", (event) => event.preventDefault());
  on("drop", (event) => {
    event.preventDefault(); // otherwise the browser would open the file
    enter(0);
    take(event.dataTransfer.files);
  });
}

async function keep(file) {
  const key = crypto.randomUUID?.() ?? `${Date.now()}-${files.size}`; // randomUUID is absent without https
  files.set(key, { body: await lighter(file), name: file.name, preview: URL.createObjectURL(file) });
  return key;
}

// Scales large images down, since each search sends them. Images the browser cannot decode are sent unchanged.
async function lighter(file) {
  if (file.size < HEAVY_BYTES) return file;
  try {
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    const scale = Math.min(1, LONGER_SIDE_PX / Math.max(bitmap.width, bitmap.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    return (await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92))) ?? file;
  } catch {
    return file;
  }
}
