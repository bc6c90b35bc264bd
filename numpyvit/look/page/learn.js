"use strict";
// The view that trains the model on the drawing, and undoes it.

let learned = []; // what the last training steps did, as nodes

async function learnView() {
  if (embedded) {
    return heading("Learn", "This needs Python: start numpyvit demo, and train on a drawing of your own.");
  }
  const rate = el("input", { type: "number", value: "0.05", min: "0.0001", max: "1", step: "any", id: "rate" });
  const result = el("div", { id: "learned" }, ...learned);
  const run = (steps) => async () => {
    result.replaceChildren("training …");
    try {
      const fields = { pixels: Array.from(trace.pixels), label: trace.label, lr: Number(rate.value), steps };
      await afterLearning(await post("/step", fields));
    } catch (error) {
      result.replaceChildren(el("p", { class: "error" }, error.message));
    }
  };
  const undo = (route) => async () => {
    await afterLearning(await post(route, {}));
  };
  const button = (label, onclick, id) => el("button", { type: "button", onclick, id }, label);
  return [
    ...heading(
      "Learn",
      `One step of gradient descent on this drawing with the label ${model.classes[trace.label]}: each ` +
        "weight moves against its gradient, by the learning rate times the gradient. The steps change a copy " +
        "of the weights for this page; no file changes.",
    ),
    el(
      "p",
      { class: "buttons" },
      el("label", {}, "learning rate ", rate),
      button("One step", run(1), "one"),
      button("Ten steps", run(10), "ten"),
      button("Undo", undo("/undo"), "undo"),
      button("Start again", undo("/reset"), "reset"),
    ),
    result,
  ];
}

async function afterLearning(answer) {
  const parts = [];
  if (answer.losses) {
    const [before, after] = [answer.losses[0], answer.losses[answer.losses.length - 1]];
    parts.push(el("p", { class: "good" }, `The loss went from ${text(before)} to ${text(after)}.`));
    const first = answer.probabilities[0][trace.label];
    const last = answer.probabilities[answer.probabilities.length - 1][trace.label];
    const name = model.classes[trace.label];
    parts.push(
      el("p", {}, `Probability of ${name}: ${(100 * first).toFixed(1)} % before, ${(100 * last).toFixed(1)} % after.`),
    );
    if (answer.accuracy_before !== null && answer.accuracy_before !== undefined) {
      const [b, a] = [answer.accuracy_before, answer.accuracy_after].map((x) => (100 * x).toFixed(1));
      parts.push(
        el("p", {}, `The price: of the sample images, ${b} % were right before, ${a} % are right now. `,
          "What the model has learned about this drawing, it may have forgotten about others."),
      );
    }
    parts.push(el("h3", {}, "The weights that moved most"), movedTable(answer.moved));
  } else {
    parts.push(el("p", {}, "The weights are what they were before."));
  }
  parts.push(el("p", {}, `${answer.undo} step${answer.undo === 1 ? "" : "s"} can be undone.`));
  learned = parts;
  await retrace();
}

function movedTable(moved) {
  return el(
    "table",
    {},
    el("tr", {}, ...["weight", "before", "after"].map((label) => el("th", {}, label))),
    ...moved.map(({ weight, index, from, to }) =>
      el(
        "tr",
        {},
        el("td", {}, `${weight}[${unravel(index, model.weights[weight].shape).join(", ")}]`),
        el("td", {}, text(from)),
        el("td", {}, text(to)),
      ),
    ),
  );
}
