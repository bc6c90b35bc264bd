"use strict";
// Follow the formula of a step (see numpyvit/look/formulas.py) for one of its elements.

// The flat index, in its argument, of element i of a view; -1 for a zero at the border.
function gathered(tree, i) {
  if (tree.index) return tree.index[i];
  let place = tree.offset;
  for (let axis = tree.shape.length - 1; axis >= 0; axis--) {
    place += (i % tree.shape[axis]) * tree.strides[axis];
    i = Math.floor(i / tree.shape[axis]);
  }
  return place;
}

// Where element i of an assignment comes from: [tree, index].
function assigned(tree, i) {
  if (!tree.places) tree.places = new Map(tree.index.map((place, k) => [place, k]));
  return tree.places.has(i) ? [tree.value, tree.places.get(i)] : [tree.base, i];
}

// The pairs of a matrix product that add up to its element i: [[index in a, index in b], ...].
function pairs(tree, i) {
  const [a, b] = tree.args;
  const K = a.shape[a.shape.length - 1];
  const [M, N] = tree.shape.slice(-2);
  const column = i % N;
  const row = Math.floor(i / N) % M;
  const matrix = Math.floor(i / (M * N));
  return Array.from({ length: K }, (_, k) => [
    (matrix * M + row) * K + k,
    (matrix * K + k) * N + column,
  ]);
}

// Follow views, assignments and joins until something is computed: [tree, index].
function resolved(tree, i) {
  for (;;) {
    if (tree.op === "gather") {
      i = gathered(tree, i);
      if (i < 0) return [{ op: "number", value: 0, shape: [] }, 0];
      tree = tree.arg;
    } else if (tree.op === "assign") {
      [tree, i] = assigned(tree, i);
    } else if (tree.op === "join") {
      let n = 0;
      while (i >= size(tree.args[n].shape)) i -= size(tree.args[n++].shape);
      tree = tree.args[n];
    } else {
      return [tree, i];
    }
  }
}

const FUNCTIONS = {
  add: (a, b) => a + b,
  subtract: (a, b) => a - b,
  multiply: (a, b) => a * b,
  divide: (a, b) => a / b,
  power: Math.pow,
  negative: (a) => -a,
  exp: Math.exp,
  log: Math.log,
  tanh: Math.tanh,
  sqrt: Math.sqrt,
  equal: (a, b) => Number(a === b),
  where: (condition, a, b) => (condition ? a : b),
  erf,
};

// The error function, by the series for small |x| and a continued fraction for large |x|.
function erf(x) {
  if (Math.abs(x) < 2.5) {
    let term = x;
    let sum = x;
    for (let n = 1; n < 60; n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  const z = Math.abs(x);
  let fraction = z;
  for (let n = 60; n > 0; n--) fraction = z + n / 2 / fraction;
  return Math.sign(x) * (1 - Math.exp(-z * z) / Math.sqrt(Math.PI) / fraction);
}

// The value of element i of a formula, computed from the values of its operands.
function evaluate(tree, i) {
  [tree, i] = resolved(tree, i);
  if (tree.op === "step") return stepValues(tree.step)[i];
  if (tree.op === "number") return tree.value;
  if (tree.op === "matmul") {
    const [a, b] = tree.args;
    return pairs(tree, i).reduce((sum, [m, n]) => sum + evaluate(a, m) * evaluate(b, n), 0);
  }
  if (tree.op === "sum" || tree.op === "max") {
    const terms = reducedElements(tree, i).map((k) => evaluate(tree.arg, k));
    return tree.op === "sum" ? terms.reduce((a, b) => a + b, 0) : Math.max(...terms);
  }
  return FUNCTIONS[tree.op](...tree.args.map((arg) => evaluate(arg, i)));
}

// The elements of its argument that a sum or a maximum takes into its element i.
function reducedElements(tree, i) {
  const K = tree.arg.shape[tree.arg.shape.length - 1];
  return Array.from({ length: K }, (_, k) => i * K + k);
}

// The cells that element i of a formula is computed from: [{step, index}].
function operands(tree, i) {
  [tree, i] = resolved(tree, i);
  if (tree.op === "step") return [{ step: tree.step, index: i }];
  if (tree.op === "number") return [];
  if (tree.op === "matmul") {
    const [a, b] = tree.args;
    return pairs(tree, i).flatMap(([m, n]) => [...operands(a, m), ...operands(b, n)]);
  }
  if (tree.op === "sum" || tree.op === "max") {
    return reducedElements(tree, i).flatMap((k) => operands(tree.arg, k));
  }
  return tree.args.flatMap((arg) => operands(arg, i));
}

// The steps that a formula uses.
function usedSteps(tree) {
  if (!tree) return [];
  if (tree.op === "step") return [tree.step];
  const inner = [tree.arg, tree.base, tree.value, ...(tree.args || [])];
  return [...new Set(inner.filter((t) => t && t.op).flatMap(usedSteps))];
}
