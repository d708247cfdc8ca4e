"use strict";
// Polls state.json and shows it. Texts are set as text, never as HTML. Addresses are relative, under the token.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 420, HEIGHT = 240, LEFT = 58, RIGHT = 10, TOP = 10, BOTTOM = 26, COLOURS = 6;
const POLL_MS = { running: 2000, complete: 10000, stopped: 5000, gone: 5000 };
const byId = (id) => document.getElementById(id);

function element(name, text, className) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function drawn(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function setText(id, text) {
  byId(id).textContent = text;
  byId(id).hidden = !text;
}

function showStatus(status) {
  byId("status").textContent = status === "gone" ? "the server has ended" : status;
  byId("status").className = `badge ${status}`;
}

function showStages(stages) {
  byId("stages").replaceChildren(...stages.map((stage) => {
    const row = element("div", undefined, "stage"), bar = element("progress");
    const done = Number(stage.done) || 0, total = Number(stage.total) || 0;
    bar.max = Math.max(total, 1e-9);
    bar.value = Math.min(done, bar.max);
    bar.setAttribute("aria-label", String(stage.stage));
    row.append(element("span", String(stage.stage)), element("span", `${+done.toFixed(1)} of ${total}`), bar);
    if (stage.message) row.append(element("small", String(stage.message)));
    return row;
  }));
}

function showImage(image) {
  byId("waiting").hidden = image !== null;
  setText("incomplete", image && image.incomplete ? `The image is incomplete (${image.incomplete}).` : "");
  for (const name of ["amplitude", "phase", "probe"]) {
    const figure = byId(name), picture = figure.firstElementChild;
    const wanted = image !== null && (name !== "probe" || image.probe);
    if (!wanted) figure.hidden = true;
    else if (picture.dataset.version !== image.version) {
      picture.dataset.version = image.version;
      picture.onload = () => { figure.hidden = false; };
      picture.onerror = () => { figure.hidden = true; picture.dataset.version = ""; };
      picture.src = `${name}.png?v=${encodeURIComponent(image.version)}`;
    } else if (picture.complete && picture.naturalWidth) figure.hidden = false;
  }
  const facts = image === null ? [] : Object.entries(image.facts);
  byId("facts").replaceChildren(...facts.flatMap(([label, text]) => [element("dt", label), element("dd", text)]));
}

function ticks(low, high, logarithmic) {
  if (!logarithmic) return [low, (low + high) / 2, high];
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const digit of [1, 2, 5]) {
      const value = digit * 10 ** power;
      if (value >= low && value <= high) found.push(value);
    }
  }
  const step = Math.max(1, Math.ceil(found.length / 6));
  return found.length > 1 ? found.filter((_, number) => number % step === 0) : [low, high];
}

function showCurves(id, curves) {
  const figure = byId(id);
  const points = curves.map((curve) => curve.x.map((x, n) => [x, curve.y[n]]).filter((p) => p[0] !== null && p[1] !== null));
  const all = points.flat();
  figure.hidden = all.length === 0;
  figure.querySelectorAll("svg, .legend").forEach((node) => node.remove());
  if (!all.length) return;
  const range = (axis) => all.reduce(([a, b], p) => [Math.min(a, p[axis]), Math.max(b, p[axis])], [Infinity, -Infinity]);
  let [[left, right], [low, high]] = [range(0), range(1)];
  const logarithmic = low > 0, scale = logarithmic ? Math.log10 : (value) => value;
  if (left === right) [left, right] = [left - 0.5, right + 0.5];
  if (low === high) [low, high] = logarithmic ? [low / 1.2, high * 1.2] : [low - 0.5, high + 0.5];
  const px = (x) => LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT);
  const py = (y) => HEIGHT - BOTTOM - (scale(y) - scale(low)) / (scale(high) - scale(low)) * (HEIGHT - TOP - BOTTOM);
  const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": figure.firstElementChild.textContent });
  for (const value of ticks(low, high, logarithmic)) {
    svg.append(drawn("line", { class: "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: py(value), y2: py(value) }));
    svg.append(drawn("text", { x: LEFT - 5, y: py(value) + 4, "text-anchor": "end" }, String(+value.toPrecision(3))));
  }
  svg.append(drawn("text", { x: LEFT, y: HEIGHT - 8 }, String(+left.toPrecision(4))));
  svg.append(drawn("text", { x: WIDTH - RIGHT, y: HEIGHT - 8, "text-anchor": "end" }, String(+right.toPrecision(4))));
  const legend = element("div", undefined, "legend");
  points.forEach((some, number) => {
    if (!some.length) return;
    const colour = `c${number % COLOURS}`;
    const line = some.length > 1 ? some : [[left, some[0][1]], [right, some[0][1]]];
    svg.append(drawn("polyline", { class: colour, points: line.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`).join(" ") }));
    legend.append(element("span", `${curves[number].name} ${some[some.length - 1][1].toPrecision(4)}`, colour));
  });
  figure.append(svg, legend);
}

function showMessages(messages) {
  byId("log").hidden = messages.length === 0;
  byId("messages").replaceChildren(...messages.slice().reverse().map(
    (message) => element("li", String(message.text), message.level === "warning" ? "warning" : message.level === "error" ? "error" : "")));
}

function show(state) {
  document.title = `${state.name} – ${state.status}`;
  byId("name").textContent = state.name;
  showStatus(state.status);
  byId("owner").textContent = state.owner;
  setText("note", state.note);
  showStages(state.stages);
  showImage(state.image);
  showCurves("errors", state.errors);
  showCurves("losses", state.losses);
  showMessages(state.messages);
}

let last = "";
async function poll() {
  let status = "gone";
  try {
    const response = await fetch("state.json", { cache: "no-cache", credentials: "omit" });
    if (!response.ok) throw new Error(String(response.status));
    const text = await response.text();
    status = JSON.parse(text).status;
    if (text !== last) show(JSON.parse(text));
    last = text;
  } catch (error) {
    last = "";
    showStatus("gone");
  }
  window.setTimeout(poll, (POLL_MS[status] || 5000) * (document.hidden ? 5 : 1));
}

poll();
