"use strict";
// The view of attention: the matrices, and what a chosen patch collects from where.

function attentionStep(variable, fn) {
  const layer = `blocks.${chosen.block}.attention`;
  return findStep(layer, fn, variable);
}

async function attentionView() {
  const a = attentionStep("a", "attention_forward");
  const s = attentionStep("s", "attention_forward");
  const da = attentionStep("da", "attention_backward");
  const ds = attentionStep("ds", "attention_backward");
  const dv = attentionStep("dv", "attention_backward");
  await load([a, s, da, ds, dv].map(stepName));
  const [, heads, N] = model.steps[a].shape;
  chosen.head = Math.min(chosen.head, heads - 1);
  const token = chosen.patch + model.prefix;
  const shown = isBackward() ? [["da", da], ["ds", ds]] : [["s (scores)", s], ["a (weights)", a]];
  const describe = (row, column) => `from ${tokenName(row)} to ${tokenName(column)}`;
  const matrices = shown.map(([caption, n]) =>
    oneHead(n, heads, N, caption, describe),
  );
  const intro = isBackward()
    ? "da is the gradient of the attention weights, and ds that of the scores before softmax. A row in " +
      "which nearly all weight lies on one token has hardly any ds: softmax is saturated there."
    : "Row i of a matrix belongs to token i: how much of each other token's value it collects. " +
      "Click a patch of the image to choose i.";
  const numbers = isBackward() ? ["∂loss/∂a", da] : ["weights a", a];
  const row = rowOf(stepValues(numbers[1]), heads, N, token);
  return [
    ...heading(`Attention of block ${chosen.block}, head ${chosen.head}`, intro),
    el("div", { class: "row" }, chooser(), overlay(row), tokenMap(row, `${numbers[0]} of ${tokenName(token)}`)),
    el("div", { class: "row" }, ...matrices),
    el("h3", {}, "All heads"),
    el("div", { class: "row" }, ...allHeads(numbers[1], heads, N, token)),
    ...(isBackward() ? [el("h3", {}, "dv = aᵀ do, by head"), stepMatrix(dv, { caption: "dv" })] : []),
    ...rollouts(),
  ];
}

function rowOf(array, heads, N, token, head = chosen.head) {
  const start = (head * N + token) * N;
  return array.subarray(start, start + N);
}

function oneHead(n, heads, N, caption, describe) {
  const array = stepValues(n);
  const start = chosen.head * N * N;
  const limit = largest(array.subarray(start, start + N * N));
  return el(
    "figure",
    { class: "matrix" },
    el("figcaption", {}, caption, scaleText([N, N], limit)),
    matrix({
      name: stepName(n),
      values: array,
      rows: N,
      columns: N,
      start,
      scale: limit,
      maxWidth: Math.max(N, 343),
      describe,
    }),
  );
}

// The image, on which a click chooses a patch.
function chooser() {
  const canvas = patchImage();
  const cell = [canvas.width / model.columns, canvas.height / model.rows];
  const context = canvas.getContext("2d");
  context.strokeStyle = "#d95f02";
  context.lineWidth = 3;
  const [r, c] = [Math.floor(chosen.patch / model.columns), chosen.patch % model.columns];
  context.strokeRect(c * cell[0] + 1, r * cell[1] + 1, cell[0] - 2, cell[1] - 2);
  canvas.tabIndex = 0;
  canvas.setAttribute("aria-label", `The image; chosen: the patch at ${patchName(chosen.patch)}`);
  const choose = (patch) => {
    chosen.patch = Math.max(0, Math.min(model.rows * model.columns - 1, patch));
    show();
  };
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * model.columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * model.rows);
    choose(row * model.columns + column);
  });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -model.columns, ArrowDown: model.columns };
    if (!(event.key in move)) return;
    event.preventDefault();
    choose(chosen.patch + move[event.key]);
  });
  return el("figure", {}, el("figcaption", {}, "Choose a patch"), canvas);
}

// The image, lit where the numbers of the patches are large.
function overlay(row) {
  const zoom = Math.max(1, Math.floor(IMAGE / model.W));
  const canvas = picture(trace.pixels, model.H, model.W, model.channels, zoom);
  const context = canvas.getContext("2d");
  const patches = row.subarray(row.length - model.rows * model.columns);
  const limit = largest(patches);
  const [w, h] = [canvas.width / model.columns, canvas.height / model.rows];
  patches.forEach((x, k) => {
    const [r, g, b] = colour(Math.sign(x));
    context.fillStyle = `rgba(${r}, ${g}, ${b}, ${0.75 * Math.abs(x / limit)})`;
    context.fillRect((k % model.columns) * w, Math.floor(k / model.columns) * h, w, h);
  });
  const best = patches.reduce((most, x, k) => (Math.abs(x) > Math.abs(patches[most]) ? k : most), 0);
  const caption = isBackward() ? "Its row, over the image" : `Most attended: ${patchName(best)}, ${text(100 * patches[best])} %`;
  canvas.setAttribute("aria-label", caption);
  return el("figure", {}, el("figcaption", {}, caption), canvas);
}

function allHeads(n, heads, N, token) {
  const array = stepValues(n);
  return Array.from({ length: heads }, (_, head) =>
    tokenMap(rowOf(array, heads, N, token, head), `head ${head}`),
  );
}

// What the server computed with numpyvit.look.attention for the whole model.
function rollouts() {
  if (!trace.rollout) return [];
  return [
    el("h3", {}, "All blocks together"),
    el(
      "p",
      {},
      "Rollout multiplies the average attention of all blocks, and treats each residual connection as half of " +
        "a block. It is a rough picture of where information can come from, not an explanation of the answer.",
    ),
    el(
      "div",
      { class: "row" },
      tokenMap(Float32Array.from(trace.rollout), "attention rollout"),
      ...(trace.gradient_rollout
        ? [tokenMap(Float32Array.from(trace.gradient_rollout), "weighted by the gradient of the label")]
        : []),
    ),
  ];
}
