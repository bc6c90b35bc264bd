"use strict";
// "This number": where the selected cell comes from, and whether its gradient is right.

async function select(name, index) {
  selected = { name, index };
  lit = new Map();
  await showInspector();
  redraw();
  rememberPlace();
}

// The indices along each axis of a flat index: 33 of shape (4, 10) is [3, 3].
function unravel(index, shape) {
  const found = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    found.unshift(index % shape[axis]);
    index = Math.floor(index / shape[axis]);
  }
  return found;
}

function shapeOf(name) {
  const [kind, ...rest] = name.split(".");
  if (kind === "step") return model.steps[Number(rest[0])].shape;
  if (name === "dimages") return [1, model.H, model.W, model.channels];
  return model.weights[rest.join(".")].shape;
}

function nameOf(name) {
  const [kind, ...rest] = name.split(".");
  if (kind === "step") {
    const step = model.steps[Number(rest[0])];
    return step.variable.startsWith("return") ? `${step.function}()` : step.variable;
  }
  if (name === "dimages") return "∂loss/∂image";
  return kind === "gradient" ? `∂loss/∂(${rest.join(".")})` : rest.join(".");
}

function cellName(name, index) {
  return `${nameOf(name)}[${unravel(index, shapeOf(name)).join(", ")}]`;
}

async function showInspector() {
  const box = document.getElementById("inspector");
  const { name, index } = selected;
  await load([name]);
  const step = name.startsWith("step.") ? model.steps[Number(name.slice(5))] : null;
  const parts = [
    el("h2", {}, cellName(name, index)),
    el("p", { class: "number" }, String(values.get(name)[index])),
  ];
  if (step) parts.push(...(await stepDetails(step, Number(name.slice(5)), index)));
  parts.push(...gradientDetails(name, index, step));
  if (selected.name === name && selected.index === index) box.replaceChildren(...parts);
}

async function stepDetails(step, n, index) {
  const parts = [
    el("p", { class: "where" }, `${step.layer || "the model"}, ${step.function}`),
    el("pre", {}, step.source || `${step.variable}: an argument of ${step.function}`),
    el("p", { class: "where" }, `numpyvit/${step.file}, line ${step.line}`),
  ];
  if (!step.formula) return parts;
  await load(usedSteps(step.formula).map(stepName));
  for (const cell of operands(step.formula, index)) {
    const key = storage(stepName(cell.step));
    lit.set(key, (lit.get(key) || new Set()).add(cell.index));
  }
  const [tree, i] = resolved(step.formula, index);
  if (tree.op === "step") {
    const from = el("p", {}, "The same number as ", chip(stepName(tree.step), i));
    return [...parts, from];
  }
  const computed = evaluate(tree, i);
  return [
    ...parts,
    el("h3", {}, "With its operands"),
    el("p", { class: "formula" }, ...expression(tree, i)),
    el("p", { class: "where" }, `= ${text(computed)}, computed by this page from the operands`),
  ];
}

// A cell as a button that selects it.
function chip(name, index) {
  const value = text(values.get(name)[index]);
  const onclick = () => select(name, index);
  return el("button", { class: "chip", type: "button", title: cellName(name, index), onclick }, value);
}

const SIGNS = { add: " + ", subtract: " − ", multiply: " × ", divide: " ÷ " };

// Element i of a formula with numbers in place of names, as a list of nodes.
function expression(tree, i) {
  [tree, i] = resolved(tree, i);
  if (tree.op === "step") return [chip(stepName(tree.step), i)];
  if (tree.op === "number") return [text(tree.value)];
  if (tree.op === "matmul") {
    const [a, b] = tree.args;
    const terms = pairs(tree, i).map(([m, n]) => ({
      value: evaluate(a, m) * evaluate(b, n),
      nodes: () => [...expression(a, m), " × ", ...expression(b, n)],
    }));
    return sumOfTerms(terms);
  }
  if (tree.op === "sum") {
    const terms = reducedElements(tree, i).map((k) => ({
      value: evaluate(tree.arg, k),
      nodes: () => expression(tree.arg, k),
    }));
    return sumOfTerms(terms);
  }
  if (tree.op === "max") {
    const best = reducedElements(tree, i).reduce((a, b) =>
      evaluate(tree.arg, b) > evaluate(tree.arg, a) ? b : a,
    );
    return ["max(… ", ...expression(tree.arg, best), " …)"];
  }
  if (tree.op in SIGNS) {
    const [a, b] = tree.args.map((arg) => expression(arg, i));
    return ["(", ...a, SIGNS[tree.op], ...b, ")"];
  }
  const inner = tree.args.map((arg) => expression(arg, i));
  return [`${tree.op}(`, ...inner.flatMap((nodes, k) => (k ? [", ", ...nodes] : nodes)), ")"];
}

// The terms of a sum, the largest first; those after the eighth are added up.
function sumOfTerms(terms) {
  const order = [...terms].sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const rest = order.slice(8).reduce((sum, term) => sum + term.value, 0);
  const rows = order
    .slice(0, 8)
    .map((term) => el("li", {}, ...term.nodes(), ` = ${text(term.value)}`));
  if (order.length > 8) rows.push(el("li", {}, `${order.length - 8} smaller terms: ${text(rest)}`));
  const total = text(terms.reduce((sum, term) => sum + term.value, 0));
  return [
    el(
      "details",
      { class: "sum", open: terms.length <= 16 },
      el("summary", {}, `Σ of ${terms.length} terms = ${total}`),
      el("ul", {}, ...rows),
    ),
  ];
}

// The gradient of the selected number, and the button that proves it.
function gradientDetails(name, index, step) {
  const weight = step && !step.formula ? `${step.layer}.${step.variable}` : null;
  if (weight in model.weights && size(step.shape) === size(model.weights[weight].shape)) {
    return gradientDetails(`weight.${weight}`, index, null);
  }
  if (step && step.backward) {
    const what = "This number is computed in the backward pass: it is, or it leads to, a gradient.";
    return [el("p", { class: "note" }, what)];
  }
  if (name.startsWith("gradient.") || name === "dimages") {
    return provable(name, index);
  }
  const parts = [el("h3", {}, "Its gradient")];
  if (step && (step.gradient === null || step.gradient === undefined)) {
    parts.push(
      el("p", { class: "note" }, "The backward pass has no array with the gradient of this one."),
    );
  } else {
    const gradient = step ? stepName(step.gradient) : name.replace("weight.", "gradient.");
    const button = el("span", {});
    load([gradient]).then(() => button.replaceChildren(chip(gradient, index)));
    parts.push(el("p", {}, "∂loss/∂(this number) = ", button));
  }
  return [...parts, ...provable(name, index)];
}

function provable(name, index) {
  if (embedded) {
    return [el("p", { class: "note" }, "numpyvit demo can prove this gradient: it needs Python.")];
  }
  const result = el("div", { class: "proof" });
  const broken = el(
    "select",
    { "aria-label": "A mistake in the backward pass" },
    el("option", { value: "" }, "the backward pass as it is"),
    el("option", { value: "softmax" }, "broken: softmax, only its diagonal"),
    el("option", { value: "scale" }, "broken: attention without 1/√E"),
    el("option", { value: "mean" }, "broken: layer norm without its mean"),
  );
  const prove = async () => {
    result.replaceChildren("computing …");
    try {
      const fields = { trace: trace.id, ...place(name, index), broken: broken.value || undefined };
      result.replaceChildren(...proof(await post("/nudge", fields)));
    } catch (error) {
      result.replaceChildren(el("p", { class: "error" }, error.message));
    }
  };
  broken.addEventListener("change", prove);
  const button = el("button", { type: "button", class: "main", id: "prove", onclick: prove }, "Prove it");
  return [el("p", {}, button, " ", broken), result];
}

function place(name, index) {
  const [kind, ...rest] = name.split(".");
  if (kind === "step") return { step: Number(rest[0]), index };
  if (name === "dimages") return { pixel: index };
  return { weight: rest.join("."), index };
}

function proof({ deltas, losses, numeric, analytic, digits }) {
  const verdict =
    analytic === null
      ? "The backward pass does not compute this gradient; the slope is that of the curve."
      : digits >= 6
        ? `They agree to ${digits} digits: the backward pass is right here.`
        : `They agree to ${digits} digits only: the backward pass is wrong.`;
  const rows = [
    ["slope of the curve (differences)", numeric],
    ["slope by the backward pass", analytic],
  ];
  return [
    curve(deltas, losses, analytic === null ? numeric : analytic),
    el(
      "table",
      {},
      ...rows.map(([label, x]) =>
        el("tr", {}, el("th", {}, label), el("td", {}, x === null ? "–" : x.toPrecision(12))),
      ),
    ),
    el("p", { class: analytic !== null && digits < 6 ? "error" : "good" }, verdict),
  ];
}

// The loss at five values of the number, and a line with the analytic slope through the middle.
function curve(deltas, losses, slope) {
  const [W, H, pad] = [280, 150, 12];
  const middle = losses[(losses.length - 1) / 2];
  const reach = Math.max(...deltas.map(Math.abs));
  const line = deltas.map((d) => middle + slope * d);
  const all = [...losses, ...line];
  const low = Math.min(...all);
  const high = Math.max(...all) > low ? Math.max(...all) : low + 1e-12;
  const x = (d) => pad + ((d + reach) / (2 * reach)) * (W - 2 * pad);
  const y = (l) => H - pad - ((l - low) / (high - low)) * (H - 2 * pad);
  const svg = (name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const points = (ys) => deltas.map((d, k) => `${x(d)},${y(ys[k])}`).join(" ");
  const label = "The loss at five values of the number, and the slope of the backward pass";
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": label });
  root.append(
    svg("polyline", { points: points(line), class: "slope" }),
    svg("polyline", { points: points(losses), class: "losses" }),
    ...deltas.map((d, k) => svg("circle", { cx: x(d), cy: y(losses[k]), r: 3.5 })),
  );
  return root;
}
