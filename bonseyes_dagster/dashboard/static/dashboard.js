// The dashboard page. The URL after # selects the view: a container, a form, a run or an artifact. The page reads all
// data through the gateway from the HTTP APIs of the containers. It sets every text as text, never as HTML.

const root = document.body.dataset.root;
const main = document.getElementById("main");
const overview = document.getElementById("overview");
const detail = document.getElementById("detail");
const FINAL = new Set(["completed", "failed", "cancelled", "interrupted"]);
const PAGE = 500, SHOWN = 100, LOG_CHARACTERS = 400_000;

let containers = JSON.parse(overview.dataset.known);
let view = new AbortController(); // leaving the view aborts it: this ends the view's requests and polling

// ---- the HTTP API ------------------------------------------------------------------------------------------------

const path = (text) => text.split("/").map(encodeURIComponent).join("/");
const api = (container, ...parts) => [`${root}/containers/${encodeURIComponent(container)}`, ...parts.map(path)].join("/");
const kindOf = (container) => ((containers[container]?.artifacts ?? []).includes("/runs") ? "runs" : "artifacts");
const makes = (container) => kindOf(container) === "runs" ? "run" : "artifact";

async function send(url, options = {}) {
  const answer = await fetch(url, { cache: "no-store", signal: view.signal, ...options });
  if (answer.status === 401) location.reload(); // the gateway's login page
  if (answer.ok) return answer;
  const error = (await answer.json().catch(() => ({}))).error ?? {};
  throw Object.assign(new Error(error.message ?? `${answer.status} ${answer.statusText}`), { status: answer.status, detail: error.detail });
}

const ask = async (url, options) => (await send(url, options)).json();

// The statuses of a container's artifacts. A refresh starts at the first artifact that is in progress. Every 30 seconds
// it reads the whole list, to notice deletions.
class Listing {
  constructor(container) { this.url = api(container, kindOf(container)); this.items = []; this.wholeAt = 0; }

  async refresh() {
    const isWhole = Date.now() - this.wholeAt > 30_000;
    const inProgress = this.items.findIndex((item) => !FINAL.has(item.phase));
    const items = isWhole ? [] : this.items.slice(0, inProgress < 0 ? this.items.length : inProgress);
    const began = Date.now();
    this.wholeAt = isWhole ? 0 : this.wholeAt;
    for (let page = null; page === null || page.length === PAGE;) {
      const after = items.length ? `&after=${encodeURIComponent(items.at(-1).name)}` : "";
      try {
        page = await ask(`${this.url}?detail=1&limit=${PAGE}${after}`);
      } catch (error) {
        this.wholeAt = 0; // the artifact in `after` may be deleted: read the whole list next time
        throw error;
      }
      items.push(...page);
    }
    if (isWhole) this.wholeAt = began;
    this.items = items;
    return items;
  }
}

// Repeat `task` until the user leaves the view or `task` returns false; ten times slower while the page is hidden.
async function poll(every_ms, task) {
  const { signal } = view;
  while (!signal.aborted) {
    try {
      if ((await task()) === false) return;
      trouble("");
    } catch (error) {
      if (signal.aborted) return;
      trouble(error.status ? error.message : "The project does not answer. The page tries again…");
    }
    await pause(document.hidden ? every_ms * 10 : every_ms, signal);
  }
}

const pause = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});

function trouble(text) {
  const place = document.getElementById("trouble");
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !text;
}

// ---- building blocks ---------------------------------------------------------------------------------------------

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...present(children));
  return node;
}

const present = (children) => children.flat(2).filter((child) => child !== null && child !== undefined && child !== false && child !== "");
const show = (node, ...children) => node.replaceChildren(...present(children));

const link = (text, href, attributes = {}) => el("a", { href, ...attributes }, text);
const phase = (name) => el("span", { class: `phase ${name}` }, name);
const code = (text) => el("code", {}, text);
const place = (container, name) => `#/${path(container)}/${kindOf(container)}/${path(name)}`;
const number = (value) => value.toLocaleString(undefined, Number.isInteger(value) ? {} : { maximumSignificantDigits: 5 });
const words = (key) => key.replaceAll("_", " ").replaceAll("-", " ").replace(/^evaluation criterias$/, "evaluation criteria");
const when = (text) => text ? el("time", { datetime: text, title: text }, new Date(text).toLocaleString()) : "–";

function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const power = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), 4);
  return `${number(Number((bytes / 1024 ** power).toPrecision(3)))} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

function duration(status) {
  if (!status.started) return "–";
  const seconds = Math.max(0, (new Date(status.finished ?? Date.now()) - new Date(status.started)) / 1000);
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function progressOf(status) {
  const { done, total, unit, message } = status.progress ?? {};
  if (status.position !== null && status.position !== undefined && status.phase === "queued") return `place ${status.position} in the queue`;
  if (FINAL.has(status.phase)) return "";
  const count = [done ?? null, total ? "of" : null, total || null, unit].filter((part) => part !== null && part !== "")
    .map((part) => typeof part === "number" ? number(part) : part).join(" ");
  const text = [count, message].filter(Boolean).join(" · ");
  const share = total ? { value: done ?? 0, max: total } : {};
  return status.phase === "running"
    ? [el("progress", { ...share, "aria-label": `Progress of ${status.name}` }), el("span", { class: "soft" }, text)]
    : el("span", { class: "soft" }, text);
}

const stepsProgress = (status) => status.steps?.length && status.phase === "running" && !status.progress?.total
  ? { ...status, progress: { done: status.steps.filter((step) => step.phase === "completed").length, total: status.steps.filter((step) => step.phase !== "not-selected").length, unit: "steps" } }
  : status;

function facts(entries) {
  const list = el("dl", { class: "facts" });
  for (const [name, value] of entries) {
    if (value === null || value === undefined || value === "" || value === false) continue;
    list.append(el("dt", {}, name), el("dd", {}, value));
  }
  return list;
}

function table(caption, columns) {
  const body = el("tbody");
  const head = el("tr", {}, columns.map((column) => el("th", { scope: "col", class: column.startsWith("#") && "number" }, column.replace("#", ""))));
  return { body, node: el("div", { class: "scroll" }, el("table", { "aria-label": caption }, el("thead", {}, head), body)) };
}

// Update the rows of a table. The row of an unchanged item stays the same element: it keeps focus and selection.
function fill(body, items, render) {
  const before = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const rows = items.map((item) => {
    const key = item.name ?? item.path, text = JSON.stringify(item) + (item.phase === "running" ? Math.floor(Date.now() / 1000) : "");
    const old = before.get(key);
    if (old?.dataset.text === text) return old;
    const row = render(item);
    Object.assign(row.dataset, { key, text });
    if (old?.contains(document.activeElement)) queueMicrotask(() => row.querySelector("a, button")?.focus());
    return row;
  });
  if (rows.length !== body.children.length || rows.some((row, i) => row !== body.children[i])) body.replaceChildren(...rows);
}

function statusRow(container, status) {
  return el("tr", {},
    el("th", { scope: "row" }, link(status.name, place(container, status.name))),
    el("td", {}, phase(status.phase)),
    el("td", { class: "wide" }, status.phase === "failed" ? el("span", { class: "soft" }, status.reason ?? "") : progressOf(stepsProgress(status))),
    el("td", {}, when(status.created)),
    el("td", { class: "number" }, duration(status)));
}

const statusTable = (caption) => table(caption, ["Name", "Phase", "Progress", "Created", "#Time"]);

function confirm(question, action, extra) {
  const dialog = document.getElementById("confirm");
  const box = dialog.querySelector("#extra");
  dialog.querySelector("#question").textContent = question;
  dialog.querySelector("[value=yes]").textContent = action;
  box.hidden = !extra;
  box.querySelector("span").textContent = extra ?? "";
  box.querySelector("input").checked = false;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    resolve(dialog.returnValue === "yes" ? { extra: box.querySelector("input").checked } : null);
  }, { once: true }));
}

// ---- overview ----------------------------------------------------------------------------------------------------

function showOverview() {
  for (const target of overview.querySelectorAll("[data-runs]")) {
    const container = target.dataset.runs, listing = new Listing(container);
    const { body, node } = statusTable(`Newest runs of ${container}`);
    poll(2000, async () => {
      const runs = (await listing.refresh()).slice(-5).reverse();
      fill(body, runs, (run) => statusRow(container, run));
      if (!runs.length) target.replaceChildren(el("p", { class: "note" }, "No run yet."));
      else if (!node.isConnected) target.replaceChildren(node);
    });
  }
  for (const cell of overview.querySelectorAll("[data-health]")) poll(10_000, () => checkHealth(cell));
  poll(10_000, refreshOverview);
}

async function checkHealth(cell) {
  let state = "ok", reason = "";
  try {
    await send(api(cell.dataset.health, "healthz"));
  } catch (error) {
    if (view.signal.aborted) return;
    [state, reason] = ["down", error.message];
  }
  if (cell.textContent !== state || cell.title !== reason) {
    cell.title = reason;
    cell.replaceChildren(el("span", { class: `phase ${state}` }, state));
  }
}

// When a container is new or has a new description, get the overview from the server again.
async function refreshOverview() {
  const now = await ask(`${root}/containers`);
  if (JSON.stringify(now) === JSON.stringify(containers)) return;
  const page = new DOMParser().parseFromString(await (await send(`${root}/`)).text(), "text/html");
  containers = now;
  overview.replaceChildren(...page.getElementById("overview").children);
  route();
}

// ---- one container -----------------------------------------------------------------------------------------------

function showContainer(container) {
  const description = containers[container], what = makes(container);
  const { body, node } = statusTable(`${what}s of ${container}`);
  const count = el("p", { class: "note", role: "status" });
  const more = el("button", { type: "button", hidden: true, onclick: () => { shown += SHOWN; draw(); } }, "Show more");
  const listing = new Listing(container);
  let shown = SHOWN;
  const draw = () => {
    const items = listing.items.slice(-shown).reverse();
    fill(body, items, (item) => statusRow(container, item));
    node.hidden = !items.length;
    more.hidden = listing.items.length <= shown;
    const text = listing.items.length ? `${listing.items.length} ${what}${listing.items.length > 1 ? "s" : ""}` : `No ${what} yet.`;
    if (count.textContent !== text) count.textContent = text;
  };
  show(detail,
    crumbs(),
    el("div", { class: "head" }, el("h1", { tabindex: -1 }, container),
      link(what === "run" ? "Start a run" : "Make an artifact", `#/${path(container)}/new`, { class: "button" })),
    el("p", {}, description.description ?? ""),
    facts([
      ["Makes", description.output_type && code(description.output_type)],
      ["Version", description.version && code(description.version)],
      ["Code", description.code_changed && "Changed since start; restart the container to use it"],
      ["Dagster job", dagsterLink(description.dagster)],
      ["API", link("openapi.json", api(container, "openapi.json"))],
    ]),
    el("h2", {}, `${what === "run" ? "Runs" : "Artifacts"}`), count, node, el("div", { class: "actions spaced" }, more));
  poll(1500, async () => { await listing.refresh(); draw(); });
}

function dagsterLink(dagster) {
  return dagster?.job ? (webAddress(dagster.url) ? link(dagster.job, webAddress(dagster.url)) : dagster.job) : null;
}

// Return a URL with the scheme http or https, else null: a link must never run a script.
function webAddress(text) {
  try {
    const url = new URL(text.startsWith("/") && root && !text.startsWith(root) ? root + text : text, location.href);
    return ["http:", "https:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function crumbs(...links) {
  const parts = [link("Overview", "#/"), ...links];
  return el("nav", { class: "crumbs", "aria-label": "Breadcrumb" }, parts.flatMap((part, i) => i ? [" / ", part] : [part]));
}

// ---- one run or artifact -----------------------------------------------------------------------------------------

function showItem(container, kind, name) {
  const state = el("span"), live = el("div"), after = el("div"), buttons = el("div", { class: "actions" }), files = el("div");
  const parameters = el("div"), steps = table(`Steps of ${name}`, ["Step", "Container", "Phase", "Progress"]);
  const item = api(container, kind, name);
  const parts = { item, container, kind, name, after, files };
  show(detail,
    crumbs(link(container, `#/${path(container)}`)),
    el("div", { class: "head" }, el("h1", { tabindex: -1 }, name, " ", state), buttons),
    live, after, kind === "runs" && el("section", {}, el("h2", {}, "Steps"), steps.node), files, el("h2", {}, "Parameters"), parameters,
    el("h2", {}, "Log"), showLog(item));
  showParameters(item, parameters);
  let seen = "", isDone = false;
  poll(1000, async () => {
    const status = await ask(`${item}/status`);
    const isFinal = FINAL.has(status.phase), text = JSON.stringify(status);
    if (text !== seen || !isFinal) drawStatus(status, state, live, steps);
    if (text !== seen) drawButtons(parts, status, buttons);
    seen = text;
    if (!isFinal || isDone) return true;
    isDone = true;
    after.replaceChildren();
    if (status.phase === "completed") await showFiles(parts);
    return false;
  });
}

function drawStatus(status, state, live, steps) {
  if (state.textContent !== status.phase) state.replaceChildren(phase(status.phase));
  show(live,
    status.reason && el("p", { class: "reason" }, status.reason),
    el("div", {}, progressOf(stepsProgress(status))),
    facts([
      ["Created", when(status.created)], ["Started", status.started && when(status.started)], ["Time", duration(status)],
      ["Size", status.size !== null && status.size !== undefined && size(status.size)],
      ["Digest", status.digest && code(status.digest)], ["Reused from", status.reused_from && code(status.reused_from)],
      ["Code", status.code_changed && "Changed since start; this artifact is never re-used"],
    ]));
  if (steps.node.parentElement) steps.node.parentElement.hidden = !status.steps?.length;
  fill(steps.body, status.steps ?? [], (step) => el("tr", {},
    el("th", { scope: "row" }, step.name),
    el("td", {}, !step.artifact || !containers[step.container] ? step.container
      : link(`${step.container}/${step.artifact}`, place(step.container, step.artifact))),
    el("td", {}, phase(step.phase)), el("td", { class: "wide" }, progressOf(step))));
}

function drawButtons({ item, container, kind, name }, status, buttons) {
  const what = kind === "runs" ? "run" : "artifact", isFinal = FINAL.has(status.phase);
  const quoted = name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const runs = kind === "runs" ? `^${container}/${quoted}$|/${quoted}_` : `^${container}/${quoted}$`;
  show(buttons,
    link("Metrics", `${root}/containers/visualization/?runFilter=${encodeURIComponent(runs)}#timeseries`, { class: "button" }),
    webAddress(status.dagster_url ?? "javascript:") && link("In Dagster", webAddress(status.dagster_url), { class: "button" }),
    status.phase === "completed" && link("Download", `${item}/data`, { class: "button", download: true }),
    !isFinal && el("button", { type: "button", onclick: () => cancel(item, what, name) }, "Cancel"),
    el("button", { type: "button", class: "danger", onclick: () => remove(item, container, what, name) }, "Delete"));
}

async function cancel(item, what, name) {
  if (!await confirm(`Cancel the ${what} ${name}? Its work so far is lost.`, `Cancel the ${what}`)) return;
  await send(`${item}/cancel`, { method: "POST" }).catch((error) => trouble(error.message));
}

async function remove(item, container, what, name) {
  const chosen = await confirm(`Delete the ${what} ${name} for good?`, `Delete the ${what}`, what === "run" ? "Also delete the artifacts that it made" : null);
  if (!chosen) return;
  try {
    await send(item + (chosen.extra ? "?artifacts=true" : ""), { method: "DELETE", signal: null });
    location.hash = `#/${path(container)}`;
  } catch (error) {
    trouble(error.message);
  }
}

async function showParameters(item, target) {
  const { signal } = view;
  try {
    const [parameters, names] = await Promise.all([ask(`${item}/input-parameters`), ask(`${item}/input-files`)]);
    const entries = Object.entries(parameters).filter(([key]) => !names.includes(key))
      .map(([key, value]) => [key, parameterValue(value)]);
    for (const file of names) entries.push([file, link("file", `${item}/input-files/${path(file)}`, { download: true })]);
    target.replaceChildren(entries.length ? facts(entries) : el("p", { class: "note" }, "None."));
  } catch (error) {
    if (!signal.aborted) target.replaceChildren(el("p", { class: "note" }, error.message));
  }
}

function parameterValue(value) {
  if (value === null) return el("span", { class: "soft" }, "none");
  const match = typeof value === "string" && /^(?:http:\/\/)?([\w.-]+)\/(?:artifacts\/)?([\w.-]+)$/.exec(value);
  if (match && containers[match[1]]) return link(`${match[1]}/${match[2]}`, place(match[1], match[2]));
  return typeof value === "object" ? code(JSON.stringify(value)) : String(value);
}

async function showFiles({ item, name, after, files }) {
  const entries = await ask(`${item}/files`);
  const report = entries.find((entry) => entry.path.split("/").at(-1) === "report.json" && entry.size < 4e6);
  if (report) {
    // A tool may write any content into report.json. After an error, the page still shows the files.
    await showReport(item, report, entries, after).catch((error) => {
      if (view.signal.aborted) throw error;
      show(after, el("p", { class: "note" }, `${report.path} cannot be shown as a report: ${error.message}`));
    });
  }
  const { body, node } = table(`Files of ${name}`, ["File", "#Size", "SHA-256"]);
  fill(body, entries.slice(0, 500), (entry) => el("tr", {},
    el("th", { scope: "row" }, link(entry.path, `${item}/data/${path(entry.path)}`, { download: entry.path.split("/").at(-1) })),
    el("td", { class: "number" }, size(entry.size)), el("td", {}, code(entry.sha256.slice(0, 16)))));
  const rest = entries.length > 500 ? el("p", { class: "note" }, `and ${entries.length - 500} more`) : null;
  show(files, el("h2", {}, "Files"), node, rest);
}

// ---- benchmark report --------------------------------------------------------------------------------------------

async function showReport(item, file, entries, target) {
  const report = await ask(`${item}/data/${path(file.path)}`);
  const folder = file.path.slice(0, -"report.json".length);
  const pictures = entries.filter((entry) => entry.path.startsWith(folder) && /\.png$/i.test(entry.path));
  const figures = Object.entries(report.metrics ?? report).filter(([, value]) => typeof value === "number");
  show(target,
    el("h2", {}, "Benchmark report ", typeof report.passed === "boolean" && verdict(report.passed)),
    figures.length ? el("dl", { class: "figures" }, figures.map(([name, value]) => el("div", {}, el("dt", {}, words(name)), el("dd", {}, number(value))))) : null,
    ...Object.entries(report).filter(([, value]) => Array.isArray(value) && value.some((entry) => typeof entry?.passed === "boolean"))
      .flatMap(([name, verdicts]) => verdictTable(words(name), verdicts)),
    pictures.length ? el("div", { class: "pictures" }, pictures.map((picture) => {
      const title = words(picture.path.slice(folder.length, -4));
      return el("figure", {}, el("img", { src: `${item}/data/${path(picture.path)}`, alt: `Picture: ${title}`, loading: "lazy" }), el("figcaption", {}, title));
    })) : null,
    classTable(report.per_class));
}

const verdict = (passed) => el("span", { class: `phase ${passed ? "completed" : "failed"}` }, passed ? "passed" : "failed");

// The results of each class, for example precision and recall, with one column for each number.
function classTable(classes) {
  if (!Array.isArray(classes) || !classes.length) return null;
  const columns = Object.keys(classes[0]).filter((key) => key !== "name");
  const { body, node } = table("Results of each class", ["Class", ...columns.map((key) => `#${key}`)]);
  fill(body, classes, (entry) => el("tr", {}, el("th", { scope: "row" }, entry.name), columns.map((key) => el("td", { class: "number" }, number(entry[key])))));
  return el("details", {}, el("summary", {}, "Results of each class"), node);
}

function verdictTable(title, verdicts) {
  const { body, node } = table(title, ["Criterion", "Verdict", "#Value", "Reason"]);
  fill(body, verdicts, (entry) => el("tr", {},
    el("th", { scope: "row" }, entry.name ?? entry.metric, entry.description ? el("div", { class: "hint" }, entry.description) : null),
    el("td", {}, verdict(entry.passed)),
    el("td", { class: "number" }, typeof entry.value === "number" ? number(entry.value) : "–"), el("td", {}, entry.reason ?? "")));
  return [el("h3", {}, title[0].toUpperCase() + title.slice(1)), node];
}

// ---- log ---------------------------------------------------------------------------------------------------------

function showLog(item) {
  const text = document.createTextNode("");
  const pre = el("pre", { class: "log", tabindex: 0, role: "log", "aria-live": "off", "aria-label": "Log" }, text);
  followLog(item, (piece) => {
    const isAtEnd = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 40;
    text.data = (text.data + piece).slice(-LOG_CHARACTERS);
    if (isAtEnd) pre.scrollTop = pre.scrollHeight;
  });
  return [pre, el("p", { class: "note spaced" }, link("Download the whole log", `${item}/log`, { download: "log.txt" }))];
}

async function followLog(item, write) {
  const { signal } = view;
  for (let offset = 0; !signal.aborted; await pause(2000, signal)) {
    const decoder = new TextDecoder();
    try {
      const reader = (await send(`${item}/log?follow=true&offset=${offset}`)).body.getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        offset += part.value.length;
        write(decoder.decode(part.value, { stream: true }));
      }
      return; // the artifact is final
    } catch (error) {
      if (error.status === 404) return;
    }
  }
}

// ---- the form ----------------------------------------------------------------------------------------------------

function showForm(container) {
  const description = containers[container], what = makes(container), title = what === "run" ? "Start a run" : "Make an artifact";
  const stamp = new Date().toISOString().replace(/\D/g, "").slice(0, 14);
  const name = { type: "string", label: "Name", description: "Letters, digits, dots, dashes and underscores.", required: true, default: `${what}-${stamp}` };
  const fields = [["name", name], ...Object.entries(description.parameters ?? {})].map(([key, parameter]) => field(key, parameter));
  const message = el("p", { class: "form-error", role: "alert", hidden: true });
  const bar = el("progress", { max: 1, "aria-label": "Upload", hidden: true });
  const submit = el("button", { class: "primary" }, title);
  const form = el("form", { class: "fields", novalidate: true }, fields.map((entry) => entry.node), message, bar, el("div", { class: "actions" }, submit));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    message.hidden = true;
    const isRight = fields.map((entry) => entry.check()).every(Boolean); // check all fields, to show all errors
    if (!isRight) return focusError(form);
    submit.disabled = true;
    try {
      const made = await upload(api(container, kindOf(container)), fields, (share) => { bar.hidden = false; bar.value = share; });
      location.hash = place(container, made.name);
    } catch (error) {
      const known = showErrors(fields, error);
      message.textContent = known ? "" : error.message;
      message.hidden = known;
      focusError(form);
    } finally {
      submit.disabled = false;
      bar.hidden = true;
    }
  });
  show(detail, crumbs(link(container, `#/${path(container)}`)), el("h1", { tabindex: -1 }, `${title} of ${container}`),
    el("p", {}, description.description ?? ""), form);
}

const focusError = (form) => form.querySelector("[aria-invalid=true]")?.focus();

// Show each error of the answer next to its field; return whether every error has a field.
function showErrors(fields, error) {
  if (error.status === 409) return fields[0].fail(error.message);
  if (error.status !== 422 || typeof error.detail !== "object" || !error.detail) return false;
  return Object.entries(error.detail).map(([key, sentence]) => fields.find((entry) => entry.key === key)?.fail(String(sentence)) ?? false).every(Boolean);
}

function field(key, parameter) {
  const id = `field-${key}`, isBox = parameter.type === "boolean";
  const error = el("p", { class: "error", id: `${id}-error`, hidden: true });
  const hint = el("div", { class: "hint", id: `${id}-hint` }, [parameter.description, bounds(parameter)].filter(Boolean).join(" "));
  const input = control(key, parameter, { id, name: key, "aria-describedby": `${id}-hint ${id}-error` });
  const label = el("label", { for: id, class: isBox && "inline" }, parameter.label || key, parameter.required || isBox || (parameter.default !== null && parameter.default !== undefined) ? null : el("span", { class: "soft" }, " (optional)"));
  const fail = (sentence) => {
    error.textContent = sentence;
    error.hidden = !sentence;
    input.setAttribute("aria-invalid", String(Boolean(sentence)));
    return true;
  };
  const check = () => {
    let sentence = input.value.trim() || isBox ? input.validationMessage : parameter.required ? "Please fill this in." : input.validationMessage;
    if (parameter.type === "json" && input.value.trim() && !sentence) sentence = jsonError(input.value);
    fail(sentence);
    return !sentence;
  };
  // Check on input, not on blur: on blur, the error line would disappear and move the button away from the pointer.
  input.addEventListener("input", () => { if (input.getAttribute("aria-invalid") === "true") check(); });
  const list = parameter.type === "artifact" ? el("datalist", { id: `${id}-list` }) : null;
  if (list) suggest(list, parameter["artifact-type"]);
  return { key, parameter, input, fail, check, node: el("div", { class: "field" }, isBox ? [input, label] : [label, input], list, hint, error) };
}

function bounds({ minimum, maximum, "artifact-type": type }) {
  const has = (value) => value !== null && value !== undefined;
  if (type) return `An artifact of type ${type}, as CONTAINER/NAME.`;
  if (has(minimum) && has(maximum)) return `From ${minimum} to ${maximum}.`;
  return has(minimum) ? `At least ${minimum}.` : has(maximum) ? `At most ${maximum}.` : "";
}

function control(key, parameter, attributes) {
  const { type, default: usual } = parameter;
  const value = usual === null || usual === undefined ? null : typeof usual === "object" ? JSON.stringify(usual, null, 2) : String(usual);
  if (type === "choice") {
    const choices = (parameter.choices ?? []).map((choice) => el("option", { selected: choice === usual }, choice));
    return el("select", attributes, parameter.required || value !== null ? null : el("option", { value: "" }, "–"), choices);
  }
  if (type === "json") return Object.assign(el("textarea", { ...attributes, spellcheck: "false" }), { value: value ?? "" });
  if (type === "boolean") return el("input", { ...attributes, type: "checkbox", checked: usual === true });
  if (type === "file") return el("input", { ...attributes, type: "file" });
  if (type === "integer" || type === "number") {
    return el("input", { ...attributes, type: "number", value, min: parameter.minimum, max: parameter.maximum, step: type === "integer" ? 1 : "any" });
  }
  const list = type === "artifact" ? `${attributes.id}-list` : null;
  return el("input", { ...attributes, type: type === "url" ? "url" : "text", value, list, autocomplete: "off", spellcheck: "false" });
}

function jsonError(text) {
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return `This is not JSON: ${error.message}`;
  }
}

// Offer the completed artifacts of the right type.
async function suggest(list, type) {
  for (const [container, description] of Object.entries(containers)) {
    if (description.output_type !== type || kindOf(container) !== "artifacts") continue;
    const items = await new Listing(container).refresh().catch(() => []);
    const completed = items.filter((item) => item.phase === "completed").slice(-200).reverse();
    list.append(...completed.map((item) => el("option", { value: `${container}/${item.name}` })));
  }
}

function upload(url, fields, onProgress) {
  const data = {}, body = new FormData();
  for (const { key, parameter, input } of fields.slice(1)) {
    if (parameter.type === "boolean") data[key] = input.checked;
    else if (parameter.type === "file") { if (input.files[0]) body.append(key, input.files[0]); }
    else if (input.value.trim() !== "") data[key] = valueOf(parameter.type, input.value);
  }
  // `name` and `data` come first: the server can refuse the request before it receives large files.
  const ordered = new FormData();
  ordered.append("name", fields[0].input.value.trim());
  ordered.append("data", JSON.stringify(data));
  for (const [key, file] of body) ordered.append(key, file);
  // Not fetch, which does not report the progress of an upload.
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => {
      const error = request.response?.error ?? {};
      if (request.status < 300) resolve(request.response);
      else reject(Object.assign(new Error(error.message ?? `${request.status} ${request.statusText}`), { status: request.status, detail: error.detail }));
    };
    request.onerror = () => reject(new Error("The project does not answer; try again."));
    view.signal.addEventListener("abort", () => request.abort(), { once: true });
    request.open("POST", url);
    request.send(ordered);
  });
}

const valueOf = (type, text) => type === "integer" || type === "number" ? Number(text) : type === "json" ? JSON.parse(text) : text.trim();

// ---- which view --------------------------------------------------------------------------------------------------

function route(event) {
  if (event && location.hash && !location.hash.startsWith("#/")) return; // the skip link
  view.abort();
  view = new AbortController();
  trouble("");
  const [container, kind, name] = (/^#\/(.*)$/.exec(location.hash)?.[1] ?? "").split("/").map(decodeURIComponent);
  const isKnown = container && containers[container];
  overview.hidden = Boolean(container);
  detail.hidden = !container;
  detail.replaceChildren();
  document.title = [name, container, "Bonseyes"].filter(Boolean).join(" · ");
  if (!container) showOverview();
  else if (!isKnown) detail.replaceChildren(crumbs(), el("h1", { tabindex: -1 }, `There is no container ${container}`));
  else if (name) showItem(container, kind, name);
  else if (kind === "new") showForm(container);
  else showContainer(container);
  if (event) { // not on the first load, when the browser sets the right focus
    (detail.querySelector("h1") ?? main).focus();
    scrollTo(0, 0);
  }
}

addEventListener("hashchange", route);
route();
