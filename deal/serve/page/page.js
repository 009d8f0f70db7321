// Sends the chosen file to the server with each change of the settings, and shows what comes back.

const PAUSE = 150; // milliseconds without a change after which the image is computed again
const ATTEMPTS = 6; // when the server is busy
const COARSE = 400; // images of fewer columns are shown with their pixels

const at = (id) => document.getElementById(id);
const boxes = [...document.querySelectorAll("input[name=part]")];
const settings = { parts: null }; // null leaves the choice of parts to the server
let file = null;
let running = new AbortController();
let downloading = new AbortController();
let timer = 0;
let largest = Infinity;

const sleep = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const waiting = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => (clearTimeout(waiting), reject(signal.reason)), { once: true });
  });

function say(text, isError = false) {
  at("status").textContent = text;
  at("status").classList.toggle("error", isError);
}

function query(changes = {}) {
  const found = { strength: at("strength").value, radiometric: at("radiometric").value, ...changes };
  if (settings.parts !== null && !("parts" in changes)) found.parts = settings.parts.join(",");
  return new URLSearchParams(found);
}

async function ask(route, options, signal) {
  for (let attempt = 1; ; attempt++) {
    const answer = await fetch(`${route}?${options}`, { method: "POST", body: file, signal });
    if (answer.ok) return { blob: await answer.blob(), told: JSON.parse(answer.headers.get("Deal-Image")) };
    const problem = (await answer.json()).error;
    if (answer.status !== 503 || attempt === ATTEMPTS) throw new Error(problem);
    const seconds = Number(answer.headers.get("Retry-After")) || 1;
    say(`The server is busy. Next attempt in ${seconds} s.`);
    await sleep(seconds, signal);
  }
}

async function show(image, blob) {
  const address = URL.createObjectURL(blob);
  const before = image.src;
  image.src = address;
  await image.decode();
  image.classList.toggle("coarse", image.naturalWidth < COARSE);
  if (before.startsWith("blob:")) URL.revokeObjectURL(before);
}

function list(notes) {
  at("notes").replaceChildren(
    ...notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })),
  );
  at("notes").hidden = notes.length === 0;
}

function tell(told) {
  const number = (value) => value.toLocaleString("en", { maximumSignificantDigits: 5, useGrouping: false });
  const window = told.type === "uint8" ? "" : `, shown from ${number(told.window[0])} to ${number(told.window[1])}`;
  const first = told.frames > 1 ? `, the first of ${told.frames} frames` : "";
  at("caption").textContent =
    `${file.name}: ${told.width} × ${told.height}${first}, ${told.type}${window}, temperatures ` +
    (told.radiometric ? "kept" : "not kept");
  list(told.notes);
  for (const box of boxes) {
    box.checked = told.parts.includes(box.value);
    box.disabled = told.radiometric && box.value === "tone";
  }
}

async function compute(isNew) {
  running.abort(new DOMException("replaced", "AbortError"));
  running = new AbortController();
  const { signal } = running;
  at("pictures").classList.add("waiting");
  say("Computing…");
  const begin = performance.now();
  try {
    const after = await ask("preview", query(), signal);
    const seconds = (performance.now() - begin) / 1000;
    const before = isNew ? await ask("preview", query({ strength: 0 }), signal) : null;
    if (before) await show(at("before"), before.blob);
    await show(at("after"), after.blob);
    if (signal.aborted) return;
    at("pictures").style.setProperty("--ratio", after.told.width / after.told.height);
    tell(after.told);
    at("figure").hidden = false;
    document.body.classList.add("shown");
    at("download").disabled = false;
    say(`Restored in ${seconds.toFixed(1)} s.`);
  } catch (error) {
    if (error.name !== "AbortError") say(sentence(error), true);
    if (error.name !== "AbortError" && isNew) forget();
  } finally {
    if (!signal.aborted) at("pictures").classList.remove("waiting");
  }
}

function sentence(error) {
  const text = error instanceof TypeError ? "the server does not answer" : error.message;
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

function hideVideo() {
  const video = at("video");
  if (video.src) URL.revokeObjectURL(video.src);
  video.removeAttribute("src");
  video.hidden = true;
}

function forget() {
  file = null;
  at("figure").hidden = true;
  at("notes").hidden = true;
  at("download").disabled = true;
  document.body.classList.remove("shown");
}

function take(chosen) {
  if (!chosen) return;
  if (chosen.size > largest) {
    say(`${chosen.name} is larger than ${largest / 1e6} MB, which is the limit here.`, true);
    return;
  }
  downloading.abort(new DOMException("replaced", "AbortError"));
  hideVideo();
  file = chosen;
  settings.parts = null;
  compute(true);
}

function changed() {
  if (!file) return;
  clearTimeout(timer);
  timer = setTimeout(() => compute(false), PAUSE);
}

async function download() {
  downloading.abort(new DOMException("replaced", "AbortError"));
  downloading = new AbortController();
  hideVideo();
  say("Computing the file…");
  const { name } = file;
  try {
    const { blob, told } = await ask("enhance", query(), downloading.signal);
    const stem = name.replace(/\.[^.]*$/, "") || "image";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${stem}_restored${told.ending}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    list(told.notes);
    if (blob.type.startsWith("video/")) {
      at("video").src = URL.createObjectURL(blob);
      at("video").hidden = false;
    }
    say(`${link.download} is downloaded.`);
  } catch (error) {
    if (error.name !== "AbortError") say(sentence(error), true);
  }
}

at("file").addEventListener("change", () => {
  take(at("file").files[0]);
  at("file").value = ""; // the same file can be chosen again
});
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
at("split").addEventListener("input", () => {
  at("pictures").style.setProperty("--split", `${at("split").value}%`);
});
for (const box of boxes) {
  box.addEventListener("change", () => {
    settings.parts = boxes.filter((each) => each.checked).map((each) => each.value);
    changed();
  });
}
at("strength").addEventListener("input", () => {
  at("amount").value = Number(at("strength").value).toFixed(2);
  changed();
});
at("radiometric").addEventListener("change", () => {
  settings.parts = null; // which parts are usual depends on this
  changed();
});
at("video").addEventListener("error", hideVideo); // of a codec that the browser does not play
at("controls").addEventListener("submit", (event) => event.preventDefault());
at("download").addEventListener("click", download);

fetch("health")
  .then((answer) => answer.json())
  .then((health) => (largest = health.max_bytes))
  .catch(() => say("The server does not answer.", true));
