"use strict";
// Arrays as coloured cells that can be pointed at, clicked, and walked through by keyboard.

// Small helper: an element with attributes and children.
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "class") node.className = value;
    else if (value !== false && value !== null) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Blue for negative numbers, orange for positive ones, white for zero; colour-blind people
// can tell the two apart. x from -1 to 1.
function colour(x) {
  const end = x < 0 ? [33, 102, 172] : [179, 88, 6];
  const t = Math.sqrt(Math.min(1, Math.abs(x))); // so that small numbers are not lost
  return end.map((c) => Math.round(255 + (c - 255) * t));
}

function text(x) {
  if (x === 0) return "0";
  const size = Math.abs(x);
  return size >= 0.001 && size < 10000 ? x.toPrecision(4) : x.toExponential(2);
}

const largest = (array) => array.reduce((most, x) => Math.max(most, Math.abs(x)), 0) || 1;

// All matrices on the page, so that a change of the selection can be drawn in each of them.
const drawn = new Set();
let selected = null; // {name, index}: name as in store.js
let lit = new Map(); // name -> set of the indices that the selected number is computed from

// The element of `part` of an array as a canvas. values: all numbers of the array. rows,
// columns: the shape of the part, which begins at element `start`. stride: from one row to
// the next. scale: the number with the full colour.
function matrix({ name, values, rows, columns, start = 0, scale, maxWidth = 420, describe }) {
  const cell = Math.max(1, Math.min(14, Math.floor(maxWidth / columns)));
  const canvas = el("canvas", { tabindex: 0, role: "img" });
  canvas.width = columns * cell;
  canvas.height = rows * cell;
  const limit = scale || largest(values);
  const draw = () => drawCells(canvas, values, rows, columns, start, limit, cell, name);
  const where = describe || ((row, column) => `row ${row}, column ${column}`);
  canvas.setAttribute("aria-label", summary(name, values, rows, columns, start, where));
  let cursor = 0;

  function choose(k) {
    cursor = Math.max(0, Math.min(rows * columns - 1, k));
    select(name, start + cursor);
  }
  function cellAt(event) {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    if (column < 0 || row < 0 || column >= columns || row >= rows) return null;
    return row * columns + column;
  }
  canvas.addEventListener("click", (event) => {
    const k = cellAt(event);
    if (k !== null) choose(k);
  });
  canvas.addEventListener("pointermove", (event) => {
    const k = cellAt(event);
    if (k === null) return hideTip();
    const row = Math.floor(k / columns);
    showTip(event, `${where(row, k % columns)}: ${text(values[start + k])}`);
  });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const from = selected && selected.name === name ? selected.index - start : cursor;
    if (event.key in step) choose(from + step[event.key]);
    else if (event.key === "Enter") choose(cursor);
    else return;
    event.preventDefault();
  });
  const item = { canvas, draw };
  drawn.add(item);
  draw();
  return canvas;
}

function summary(name, values, rows, columns, start, where) {
  let best = 0;
  for (let k = 1; k < rows * columns; k++) {
    if (Math.abs(values[start + k]) > Math.abs(values[start + best])) best = k;
  }
  const place = where(Math.floor(best / columns), best % columns);
  return `${rows} by ${columns} numbers; the largest is ${text(values[start + best])} at ${place}`;
}

function drawCells(canvas, values, rows, columns, start, limit, cell, name) {
  const context = canvas.getContext("2d");
  const image = new ImageData(columns, rows);
  for (let k = 0; k < rows * columns; k++) {
    const [r, g, b] = colour(values[start + k] / limit);
    image.data.set([r, g, b, 255], 4 * k);
  }
  const small = new OffscreenCanvas(columns, rows);
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, columns * cell, rows * cell);
  const outline = (index, style) => {
    const k = index - start;
    if (k < 0 || k >= rows * columns) return;
    context.strokeStyle = style;
    context.lineWidth = cell > 5 ? 2 : 1;
    context.strokeRect((k % columns) * cell, Math.floor(k / columns) * cell, cell, cell);
  };
  const key = storage(name);
  for (const index of lit.get(key) || []) outline(index, "#0a7d32");
  if (selected && storage(selected.name) === key) outline(selected.index, "#111");
}

// Two steps with the same original share their numbers, so they light up together.
function storage(name) {
  return name.startsWith("step.") ? stepName(original(Number(name.slice(5)))) : name;
}

function redraw() {
  for (const item of drawn) {
    if (item.canvas.isConnected) item.draw();
    else drawn.delete(item);
  }
}

// A step as one matrix, or as one for each index of its leading axes, of which at most
// `most` are shown; caption: what is written above it.
function stepMatrix(n, { caption, maxWidth = 420, most = 12, scale } = {}) {
  const step = model.steps[n];
  return arrayMatrix(stepName(n), step.shape, { caption, maxWidth, most, scale });
}

function arrayMatrix(name, shape, { caption, maxWidth = 420, most = 12, scale, describe } = {}) {
  const array = values.get(name);
  const limit = scale || largest(array);
  const [rows, columns] = shape.length > 1 ? shape.slice(-2) : [1, size(shape)];
  const parts = size(shape) / (rows * columns) || 0;
  const width = parts > 1 ? Math.max(60, maxWidth / Math.min(parts, 3) - 8) : maxWidth;
  const canvases = Array.from({ length: Math.min(parts, most) }, (_, part) =>
    matrix({
      name,
      values: array,
      rows,
      columns,
      start: part * rows * columns,
      scale: limit,
      maxWidth: width,
      describe,
    }),
  );
  const more = parts > most ? [el("small", {}, `${most} of ${parts} matrices are shown`)] : [];
  return el(
    "figure",
    { class: "matrix" },
    el("figcaption", {}, ...(caption ? [caption] : []), scaleText(shape, limit)),
    el("div", { class: "parts" }, ...canvases),
    ...more,
  );
}

function scaleText(shape, limit) {
  return el("small", {}, ` (${shape.join(", ")}), full colour at ±${text(limit)}`);
}

// An image, as a person sees it: pixels are integers from 0 to 255.
function picture(pixels, H, W, C, zoom) {
  const canvas = el("canvas", { class: "pixels", role: "img", "aria-label": "the image" });
  canvas.width = W * zoom;
  canvas.height = H * zoom;
  const image = new ImageData(W, H);
  for (let k = 0; k < H * W; k++) {
    for (let c = 0; c < 3; c++) image.data[4 * k + c] = pixels[k * C + (C === 3 ? c : 0)];
    image.data[4 * k + 3] = 255;
  }
  const small = new OffscreenCanvas(W, H);
  small.getContext("2d").putImageData(image, 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, W * zoom, H * zoom);
  return canvas;
}

function showTip(event, message) {
  const tip = document.getElementById("tip");
  tip.textContent = message;
  tip.hidden = false;
  const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const top = Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8);
  tip.style.setProperty("transform", `translate(${left}px, ${top}px)`);
}

function hideTip() {
  document.getElementById("tip").hidden = true;
}
