"use strict";
// The frame of the page: drawing, prediction, tabs, and the address that remembers the place.

const SIDE = 280; // of the canvas for drawing, in pixels
let showing = 0; // counts calls of show, so that a stale view is dropped

async function show() {
  const turn = ++showing;
  rememberPlace();
  drawTabs();
  drawControls();
  drawLoss();
  const view = document.getElementById("view");
  if (!trace) {
    view.replaceChildren(el("p", { class: "note" }, "Draw a digit on the left, or open an image."));
    return;
  }
  try {
    const nodes = await VIEWS[chosen.view][1]();
    if (turn === showing) view.replaceChildren(...nodes);
  } catch (error) {
    if (turn === showing) view.replaceChildren(el("p", { class: "error" }, error.message));
  }
  document.body.dataset.ready = String(turn);
}

function drawTabs() {
  const tabs = Object.entries(VIEWS).map(([name, [label]]) =>
    el(
      "button",
      {
        type: "button",
        "aria-current": chosen.view === name ? "page" : false,
        onclick: () => open({ view: name }),
      },
      label,
    ),
  );
  const tour = el("button", { type: "button", id: "start-tour", onclick: () => showTour(stop_ || 1) }, "Take the tour");
  document.getElementById("tabs").replaceChildren(...tabs, tour);
}

function open(place) {
  Object.assign(chosen, place);
  return show();
}

function drawControls() {
  const choice = (label, key, options) => {
    const select = el("select", { "aria-label": label });
    for (const [value, name] of options) {
      select.append(el("option", { value, selected: String(value) === String(chosen[key]) }, name));
    }
    select.addEventListener("change", () =>
      open({ [key]: key === "mode" ? select.value : Number(select.value) }),
    );
    return el("label", {}, `${label} `, select);
  };
  const counted = (n) => Array.from({ length: n }, (_, i) => [i, i]);
  const controls = [];
  if (!["learn", "opinion"].includes(chosen.view)) {
    controls.push(choice("Pass", "mode", [["forward", "forward: values"], ["backward", "backward: gradients"]]));
  }
  if (["block", "attention"].includes(chosen.view)) {
    controls.push(choice("Block", "block", counted(model.config.depth)));
  }
  if (chosen.view === "attention") controls.push(choice("Head", "head", counted(model.config.heads)));
  document.getElementById("controls").replaceChildren(...controls);
}

function drawLoss() {
  const box = document.getElementById("loss");
  if (!trace) return box.replaceChildren();
  const select = el("select", { "aria-label": "The label", id: "label" });
  model.classes.forEach((name, k) =>
    select.append(el("option", { value: k, selected: k === trace.label }, name)),
  );
  select.disabled = Boolean(embedded);
  select.addEventListener("change", () => retrace(Number(select.value)));
  box.replaceChildren(
    el("label", {}, "label ", select),
    el("p", {}, `loss ${text(trace.loss)} = −ln ${text(trace.probabilities[trace.label])}`),
  );
}

function drawBars(probabilities, pixels, remark) {
  const bars = document.getElementById("bars");
  const seen = picture(pixels, model.H, model.W, model.channels, Math.max(1, Math.floor(84 / model.W)));
  bars.replaceChildren(
    probabilityBars(probabilities),
    el("figure", { class: "seen" }, el("figcaption", {}, `What the model sees: ${remark || ""}`), seen),
  );
}

async function retrace(label = trace.label) {
  const { remark } = trace;
  await makeTrace(trace.pixels, label);
  trace.remark = remark;
  drawBars(trace.probabilities, trace.pixels, remark);
  await show();
  if (selected) await showInspector();
}

// Predict an image, and record it when `whole` is true. Stale answers are dropped.
let asked = 0;
async function predict(body, type, whole, label = null) {
  const turn = ++asked;
  const message = document.getElementById("message");
  try {
    const answer = await ask("/predict", body, type);
    if (turn !== asked) return;
    message.textContent = "";
    drawBars(answer.probabilities, answer.pixels, answer.remark);
    if (!whole) return;
    const best = answer.probabilities.indexOf(Math.max(...answer.probabilities));
    await makeTrace(answer.pixels, label === null ? best : label);
    trace.remark = answer.remark;
    if (turn === asked) await show();
    if (selected) await showInspector();
  } catch (error) {
    if (turn === asked) message.textContent = error.message;
  }
}

// A canvas to draw on: white ink on black, or black on white, as the model's images are.
function drawingPad() {
  const canvas = el("canvas", { id: "pad", "aria-label": "Draw here with the mouse or a finger" });
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d", { alpha: false });
  const clear = () => {
    context.fillStyle = "white";
    context.fillRect(0, 0, SIDE, SIDE);
  };
  clear();
  let last = null;
  let waiting = false;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE];
  };
  const send = (whole) => {
    if (waiting && !whole) return;
    waiting = true;
    canvas.toBlob(async (blob) => {
      await predict(blob, "image/png", whole);
      waiting = false;
    });
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    stroke(last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const next = place(event);
    stroke(next);
    last = next;
    send(false);
  });
  canvas.addEventListener("pointerup", () => {
    if (last) send(true);
    last = null;
  });
  function stroke(next) {
    context.lineWidth = 22;
    context.lineCap = "round";
    context.strokeStyle = "black";
    context.beginPath();
    context.moveTo(...last);
    context.lineTo(next[0] + 0.01, next[1]);
    context.stroke();
  }
  const button = el("button", { type: "button", id: "clear", onclick: clear }, "Clear");
  return [canvas, button];
}

function drawInput() {
  const parts = [];
  if (embedded) {
    const select = el("select", { "aria-label": "The image" });
    embedded.traces.forEach((t, n) => select.append(el("option", { value: n }, t.name)));
    select.addEventListener("change", () => {
      openEmbedded(Number(select.value));
      drawBars(trace.probabilities, trace.pixels, trace.remark);
      show();
    });
    parts.push(select);
  } else {
    if (model.channels === 1) parts.push(...drawingPad());
    const file = el("input", { type: "file", accept: "image/*", "aria-label": "Open an image file" });
    file.addEventListener("change", async () => {
      if (file.files[0]) predict(await smaller(file.files[0]), "image/png", true);
    });
    parts.push(el("label", { class: "file" }, "or open an image ", file));
    if (model.images.length) {
      const select = el("select", { "aria-label": "An image", id: "images" });
      select.append(el("option", { value: "" }, "or choose one"));
      model.images.forEach(({ name }, n) => select.append(el("option", { value: n }, name)));
      select.addEventListener("change", () => select.value && openImage(Number(select.value)));
      parts.push(select);
    }
  }
  parts.push(el("p", { id: "message", class: "error", role: "alert" }));
  document.getElementById("drawing").replaceChildren(...parts);
}

const openImage = (n) =>
  predict(JSON.stringify({ image: n }), "application/json", true, model.images[n].label);

// Make an image small enough to send, without cutting anything off.
async function smaller(file) {
  const bitmap = await createImageBitmap(file);
  for (let side = 4 * Math.max(model.H, model.W); ; side *= 0.7) {
    const zoom = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
    const canvas = new OffscreenCanvas(Math.max(1, bitmap.width * zoom), Math.max(1, bitmap.height * zoom));
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const blob = await canvas.convertToBlob({ type: "image/png" });
    if (blob.size < 60000 || side < 8) return blob;
  }
}

// The address of the page after "#" remembers the view, and the stop of the tour.
function rememberPlace() {
  const { view, mode, block, head, patch } = chosen;
  const fields = { view, mode, block, head, patch };
  if (stop_ !== null) fields.tour = stop_;
  if (selected) fields.cell = `${selected.name}:${selected.index}`;
  history.replaceState(null, "", `${location.pathname}${location.search}#${new URLSearchParams(fields)}`);
}

function readPlace() {
  const fields = new URLSearchParams(location.hash.slice(1));
  for (const key of ["block", "head", "patch"]) {
    const n = Number(fields.get(key));
    if (Number.isInteger(n) && n >= 0) chosen[key] = n;
  }
  chosen.block = Math.min(chosen.block, model.config.depth - 1);
  if (fields.get("view") in VIEWS) chosen.view = fields.get("view");
  if (fields.get("mode") === "backward") chosen.mode = "backward";
  const cell = /^(.+):(\d+)$/.exec(fields.get("cell") || "");
  return { tour: Number(fields.get("tour")), cell: cell && { name: cell[1], index: Number(cell[2]) } };
}

async function start() {
  try {
    await openModel();
  } catch (error) {
    document.getElementById("view").replaceChildren(el("p", { class: "error" }, error.message));
    return;
  }
  const total = Object.values(model.weights).reduce((sum, { shape }) => sum + size(shape), 0);
  document.getElementById("lead").textContent =
    `${model.channels === 1 ? "Draw a digit" : "Open an image"}. Every number that this model of ` +
    `${total.toLocaleString("en")} weights computes is on this page, forward and backward.`;
  const place = readPlace();
  drawInput();
  waitForGradients();
  if (embedded) {
    openEmbedded(0);
    drawBars(trace.probabilities, trace.pixels, trace.remark);
  } else if (model.images.length) {
    await openImage(0);
  }
  document.getElementById("inspector").replaceChildren(
    el("h2", {}, "This number"),
    el("p", {}, "Click any cell: its formula with its operands, the line of source that made it, and its gradient appear here."),
  );
  if (place.tour) await showTour(place.tour);
  else await show();
  if (place.cell && trace) await select(place.cell.name, place.cell.index).catch(() => {});
  document.body.dataset.started = "true";
}

start();
