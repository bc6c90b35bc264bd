"use strict";
// The model, the trace of one image, and where they come from: the server of this page, or
// the data that the page carries with it.

const embedded = JSON.parse(document.getElementById("data").textContent);
const token = new URLSearchParams(location.search).get("token") || "";
const page = crypto.getRandomValues(new Uint32Array(4)).join("-");

let model = null; // what GET /model returned
let trace = null; // {id, pixels, label, loss, probabilities, lens}
let values = new Map(); // "step.12", "weight.head.fc.w", ... -> Float32Array

async function ask(route, body, type = "application/json") {
  const headers = { "X-Token": token, "X-Page": page };
  let answer;
  try {
    if (body === undefined) {
      answer = await fetch(`${route}?token=${encodeURIComponent(token)}`, { headers });
    } else {
      headers["Content-Type"] = type;
      answer = await fetch(route, { method: "POST", headers, body });
    }
  } catch {
    throw new Error("The server has ended. Start numpyvit demo again, and open its new address.");
  }
  if (answer.headers.get("Content-Type") === "application/octet-stream") {
    return parseArrays(await answer.arrayBuffer());
  }
  const result = await answer.json();
  if (result.error) throw new Error(result.error);
  return result;
}

const post = (route, fields) => ask(route, JSON.stringify(fields));

// The container of the safetensors format: the length of a JSON header in 8 bytes, the
// header, and the numbers.
function parseArrays(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const arrays = new Map();
  for (const [name, { data_offsets: [begin, end] }] of Object.entries(header)) {
    arrays.set(name, new Float32Array(buffer.slice(8 + length + begin, 8 + length + end)));
  }
  return arrays;
}

function decodeBase64(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
}

async function openModel() {
  if (embedded) {
    model = embedded.model;
  } else {
    model = await ask("/model");
  }
  const c = model.config;
  const pair = (size) => (Array.isArray(size) ? size : [size, size]);
  [model.H, model.W] = pair(c.image_size);
  [model.p1, model.p2] = pair(c.patch_size);
  model.rows = model.H / model.p1;
  model.columns = model.W / model.p2;
  model.prefix = c.pooling === "cls" ? 1 : 0;
  model.tokens = model.prefix + model.rows * model.columns;
}

// Gradients are matched to the numbers in the background when the server starts.
async function waitForGradients() {
  while (!embedded && model.gradients_ready === false) {
    await new Promise((done) => setTimeout(done, 1000));
    const again = await ask("/model");
    model.gradients_ready = again.gradients_ready;
    again.steps.forEach((step, n) => (model.steps[n].gradient = step.gradient));
  }
}

async function makeTrace(pixels, label) {
  if (embedded) throw new Error("A page that is opened from the disk shows the images in it.");
  const result = await post("/trace", { pixels: Array.from(pixels), label });
  trace = { ...result, id: result.trace, pixels, label };
  values = new Map();
}

function openEmbedded(n) {
  const found = embedded.traces[n];
  trace = { ...found, id: n };
  values = parseArrays(decodeBase64(found.arrays));
  for (const [name, equal] of Object.entries(found.same)) values.set(name, values.get(equal));
}

// Load the arrays that are not here yet. names: "step.12", "weight.NAME", "gradient.NAME".
async function load(names) {
  const missing = [...new Set(names)].filter((name) => !values.has(name));
  if (!missing.length) return;
  const of = (kind) =>
    missing.filter((name) => name.startsWith(kind)).map((name) => name.slice(kind.length));
  const wanted = {
    trace: trace.id,
    steps: of("step.").map(Number),
    weights: of("weight."),
    gradients: of("gradient."),
    dimages: missing.includes("dimages"),
  };
  const current = values;
  for (const [name, array] of await post("/arrays", wanted)) current.set(name, array);
}

const stepName = (n) => `step.${n}`;
const stepValues = (n) => values.get(stepName(n));
const size = (shape) => shape.reduce((a, b) => a * b, 1);

// The numbers of the steps for which the test holds, in order.
function findSteps(test) {
  return model.steps.flatMap((step, n) => (test(step) ? [n] : []));
}

// The last step with this layer, function and variable.
function findStep(layer, fn, variable) {
  const found = findSteps(
    (s) => s.layer === layer && s.function === fn && s.variable === variable,
  );
  return found.length ? found[found.length - 1] : null;
}

// Many steps are the same array again, passed on to another function or reshaped. They all
// have the same original.
function original(n) {
  for (;;) {
    let tree = model.steps[n].formula;
    while (tree && tree.op === "gather" && isReshape(tree)) tree = tree.arg;
    if (!tree || tree.op !== "step") return n;
    n = tree.step;
  }
}

function isReshape(tree) {
  if (!tree.strides || tree.offset !== 0 || size(tree.shape) !== size(tree.arg.shape)) return false;
  let stride = 1;
  for (let axis = tree.shape.length - 1; axis >= 0; axis--) {
    if (tree.shape[axis] > 1 && tree.strides[axis] !== stride) return false;
    stride *= tree.shape[axis];
  }
  return true;
}

const isRepeat = (n) => original(n) !== n;
