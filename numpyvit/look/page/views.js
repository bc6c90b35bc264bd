"use strict";
// The views. Each is a function that returns nodes for the part of the model that it shows.
// `chosen` holds what the reader has chosen; it is written to the address of the page.

const chosen = { view: "patches", mode: "forward", block: 0, head: 0, patch: 0, feature: 0, all: 0 };
const VIEWS = {
  patches: ["Patches", patchesView],
  stream: ["Residual stream", streamView],
  block: ["Block", blockView],
  attention: ["Attention", attentionView],
  head: ["Head and loss", headView],
  opinion: ["Opinion by layer", opinionView],
  learn: ["Learn", learnView],
};

const IMAGE = 224; // the width of the image in the views, in pixels

const isBackward = () => chosen.mode === "backward";
const patchName = (n) => `row ${Math.floor(n / model.columns)}, column ${n % model.columns}`;
const tokenName = (n) =>
  n < model.prefix ? "the class token" : `the patch at ${patchName(n - model.prefix)}`;

// The steps of a layer and the layers inside it, in the chosen mode, without repetitions.
function stepsOf(layer) {
  return findSteps(
    (s) => (s.layer === layer || s.layer.startsWith(`${layer}.`)) && s.backward === isBackward(),
  ).filter((n) => !isRepeat(n) && size(model.steps[n].shape) > 1);
}

function heading(title, ...paragraphs) {
  return [el("h2", {}, title), ...paragraphs.map((p) => el("p", {}, ...(Array.isArray(p) ? p : [p])))];
}

// One step as a card: its source, and its numbers.
function card(n) {
  const step = model.steps[n];
  return el(
    "article",
    { class: "card", id: `card-${n}` },
    el("pre", {}, step.source || `${step.variable}   (an argument of ${step.function})`),
    el("small", { class: "where" }, `${step.layer || "the model"} · ${step.file}:${step.line}`),
    stepMatrix(n, { caption: step.variable, maxWidth: 300 }),
  );
}

const cards = (steps) => el("div", { class: "cards" }, ...steps.map(card));

// 1: patches and the tokens that they become.
async function patchesView() {
  const layer = stepsOf("embed");
  const { p1, p2, channels } = model;
  const w = "weight.embed.w";
  const names = ["weight.embed.w", "gradient.embed.w", "dimages", ...layer.map(stepName)];
  await load(names);
  const filters = isBackward() ? "gradient.embed.w" : w;
  const image = isBackward()
    ? arrayMatrix("dimages", [model.H, model.W * channels], {
        caption: "∂loss/∂pixel",
        maxWidth: 224,
        describe: (row, column) => `pixel at row ${row}, column ${Math.floor(column / channels)}`,
      })
    : el("figure", {}, el("figcaption", {}, "The image, cut into patches"), patchImage());
  const text = isBackward()
    ? "How much the loss would rise if a pixel became lighter: orange; darker: blue."
    : `The image has ${model.rows} by ${model.columns} patches of ${p1} by ${p2} pixels. Each patch ` +
      "becomes a row of numbers, and a matrix product turns the row into a token.";
  return [
    ...heading("Patches", text),
    el("div", { class: "row" }, image, filterImages(filters)),
    cards(layer),
  ];
}

function patchImage() {
  const zoom = Math.max(1, Math.floor(IMAGE / model.W));
  const canvas = picture(trace.pixels, model.H, model.W, model.channels, zoom);
  const context = canvas.getContext("2d");
  context.strokeStyle = "#4a90d9";
  for (let r = 0; r <= model.rows; r++) line(0, r * model.p1, model.W, r * model.p1);
  for (let c = 0; c <= model.columns; c++) line(c * model.p2, 0, c * model.p2, model.H);
  function line(x1, y1, x2, y2) {
    context.beginPath();
    context.moveTo(x1 * zoom, y1 * zoom);
    context.lineTo(x2 * zoom, y2 * zoom);
    context.stroke();
  }
  return canvas;
}

// Each column of the embedding's weight as a small image, with the shape of a patch.
function filterImages(name) {
  const [inputs, features] = model.weights["embed.w"].shape;
  const array = values.get(name);
  const side2 = Math.round(Math.sqrt(inputs / model.channels) * (model.p2 / Math.sqrt(model.p1 * model.p2)));
  const side1 = inputs / model.channels / side2;
  const shown = Math.min(features, 64);
  const images = Array.from({ length: shown }, (_, f) => {
    const column = Float32Array.from({ length: inputs }, (_, i) => array[i * features + f]);
    const canvas = el("canvas", { role: "img", "aria-label": `filter ${f}` });
    const zoom = Math.max(2, Math.floor(36 / side2));
    canvas.width = side2 * zoom;
    canvas.height = side1 * zoom;
    const mean = Float32Array.from({ length: side1 * side2 }, (_, k) => {
      let sum = 0;
      for (let c = 0; c < model.channels; c++) sum += column[k * model.channels + c];
      return sum / model.channels;
    });
    drawCells(canvas, mean, side1, side2, 0, largest(mean), zoom, `filter ${f}`);
    return canvas;
  });
  const caption = name.startsWith("gradient") ? "The gradients of the filters" : "The filters";
  return el(
    "figure",
    {},
    el("figcaption", {}, `${caption}, one for each of the ${features} features of a token`),
    el("div", { class: "filters" }, ...images),
  );
}

// 2: the residual stream, at the input and after each block.
function streamSteps() {
  const blocks = Array.from({ length: model.config.depth }, (_, i) => `blocks.${i}`);
  const variable = isBackward() ? "dy" : "x";
  const fn = isBackward() ? "backward" : "forward";
  const inputs = blocks.map((layer) => {
    const found = findSteps((s) => s.layer === layer && s.function === fn && s.variable === variable);
    return isBackward() ? found[0] : found[0];
  });
  const last = findSteps(
    (s) => s.layer === "norm" && s.function === fn && s.variable === variable,
  )[0];
  return { inputs, last };
}

async function streamView() {
  const { inputs, last } = streamSteps();
  const steps = isBackward() ? [...inputs] : [...inputs, last];
  await load(steps.map(stepName));
  const titles = steps.map((_, i) =>
    isBackward()
      ? `after block ${i}`
      : i === 0
        ? "before the blocks"
        : `after block ${i - 1}`,
  );
  const text = isBackward()
    ? "The gradient of the loss with respect to the stream. It flows from the last block to the first; " +
      "at each addition it goes to both sides, so it reaches the first block directly."
    : "Each row is a token. Blocks only add to it: attention moves information between rows, and " +
      "the MLP works on each row. The small map shows the length (norm) of each token, at the place of its patch.";
  const items = steps.map((n, i) =>
    el(
      "article",
      { class: "card" },
      el("h3", {}, titles[i]),
      el("div", { class: "row" }, tokenNorms(n), stepMatrix(n, { caption: model.steps[n].variable, maxWidth: 300 })),
    ),
  );
  return [...heading("Residual stream", text), ...(isBackward() ? items.reverse() : items)];
}

function tokenNorms(n) {
  const [tokens, width] = model.steps[n].shape.slice(-2);
  const array = stepValues(n);
  const norms = Float32Array.from({ length: tokens }, (_, t) =>
    Math.hypot(...array.subarray(t * width, (t + 1) * width)),
  );
  return tokenMap(norms, "norm of each token");
}

// One number for each token, drawn at the place of its patch.
function tokenMap(numbers, caption, limit = largest(numbers)) {
  const patches = numbers.subarray(numbers.length - model.rows * model.columns);
  const canvas = el("canvas", { role: "img", class: "map" });
  const zoom = Math.max(2, Math.floor(140 / model.columns));
  canvas.width = model.columns * zoom;
  canvas.height = model.rows * zoom;
  const where = (r, c) => `row ${r}, column ${c}`;
  canvas.setAttribute("aria-label", summary("", patches, model.rows, model.columns, 0, where));
  drawCells(canvas, patches, model.rows, model.columns, 0, limit, zoom, "map");
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const c = Math.min(model.columns - 1, Math.floor(((event.clientX - box.left) / box.width) * model.columns));
    const r = Math.min(model.rows - 1, Math.floor(((event.clientY - box.top) / box.height) * model.rows));
    showTip(event, `patch at row ${r}, column ${c}: ${text(patches[r * model.columns + c])}`);
  });
  canvas.addEventListener("pointerleave", hideTip);
  const first = model.prefix && numbers.length > patches.length ? ` (class token: ${text(numbers[0])})` : "";
  return el("figure", {}, el("figcaption", {}, caption + first), canvas);
}

// 3: everything that a block computes, line by line.
async function blockView() {
  const steps = stepsOf(`blocks.${chosen.block}`);
  await load(steps.map(stepName));
  const text = isBackward()
    ? "The lines that compute the gradients, in the order in which they run: from the block's output to its input."
    : "The lines that compute this block, in the order in which they run.";
  return [...heading(`Block ${chosen.block}`, `${text} Click a number to see where it comes from.`), cards(steps)];
}

// 4: from the last block to the loss.
async function headView() {
  const steps = ["norm", "pool", "head"].flatMap(stepsOf);
  const loss = findSteps(
    (s) => s.file === "losses.py" && s.backward === isBackward() && size(s.shape) > 1,
  ).filter((n) => !isRepeat(n));
  const order = isBackward() ? [...loss, ...["head", "pool", "norm"].flatMap(stepsOf)] : [...steps, ...loss];
  await load(order.map(stepName));
  const text = isBackward()
    ? "The backward pass starts with as many numbers as there are classes: the probabilities minus the target."
    : "The last norm, one vector for the image, a score for each class, and the loss.";
  return [...heading("Head and loss", text), cards(order)];
}

// 5: what the model would answer if it stopped after each block.
async function opinionView() {
  const bars = (trace.lens || []).map((probabilities, i) =>
    el(
      "article",
      { class: "card" },
      el("h3", {}, i === 0 ? "before the blocks" : `after block ${i - 1}`),
      probabilityBars(probabilities),
    ),
  );
  return [
    ...heading(
      "Opinion by layer",
      "The last norm and the head, applied to the stream after each block. They were trained for the " +
        "last one, so the earlier answers are only a hint of what the stream already contains.",
    ),
    el("div", { class: "row" }, ...bars),
  ];
}

function probabilityBars(probabilities) {
  const order = Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a]);
  const shown = order.slice(0, 10).sort((a, b) => a - b);
  return el(
    "div",
    { class: "bars" },
    ...shown.map((k) => {
      const percent = (100 * probabilities[k]).toFixed(1);
      return el(
        "div",
        { class: "bar", role: "listitem" },
        el("span", { class: "class" }, model.classes[k]),
        el("meter", { min: 0, max: 1, value: probabilities[k], "aria-label": `${model.classes[k]}: ${percent} %` }),
        el("span", { class: "percent" }, `${percent} %`),
      );
    }),
  );
}
