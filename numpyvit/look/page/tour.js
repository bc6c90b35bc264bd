"use strict";
// A guided tour: each stop opens a view, says what to look at, and asks a question.

const TOUR = [
  {
    title: "An image goes in, probabilities come out",
    text:
      "Draw a digit on the left, or keep the one that is there. The bars are the model's answer. Everything between the " +
      "two is on this page: the model has only a few thousand numbers for each image, and you can look at all of them.",
    question: "Which classes does the model hesitate between?",
    answer: "The second highest bar. Draw on, and see at which stroke it changes its mind.",
    go: { view: "patches", mode: "forward" },
  },
  {
    title: "Patches become tokens",
    text:
      "The image is cut into squares, and each square is written as a row: that takes one reshape, one transpose, and another " +
      "reshape. A reshape alone would cut strips out of the image, not squares.",
    question: "Where does the first number of the second row come from?",
    answer: "From the top left pixel of the second patch of the first row of patches. Click the number: the inspector follows it back.",
    go: { view: "patches", mode: "forward" },
  },
  {
    title: "The residual stream",
    text:
      "From here on the image is a table: one row for each token. The blocks never replace it, they only add to it. " +
      "Compare the table before the blocks with the one after the last block.",
    question: "Which tokens have grown most?",
    answer: "Look at the small maps: the brightest cells. They are rarely the empty background.",
    go: { view: "stream", mode: "forward" },
  },
  {
    title: "A block, line by line",
    text:
      "These are the lines of the program that compute the first block, with the numbers that they computed. Norm, queries, keys, " +
      "values, scores, softmax, a weighted average, and an addition; then norm, linear, GELU, linear, and an addition.",
    question: "What does layer norm do to a row?",
    answer: "It makes the mean of the row 0 and its standard deviation 1, and then applies a scale and a shift for each feature.",
    go: { view: "block", mode: "forward", block: 0 },
  },
  {
    title: "Attention: who looks at whom",
    text:
      "Each row of the matrix sums to 1: it says how much a token collects from every token. Click patches on the image and see " +
      "where their information comes from.",
    question: "Do the two heads of this block look at the same places?",
    answer: "Usually not: compare the maps under “All heads”. That is why there are several.",
    go: { view: "attention", mode: "forward", block: 0, head: 0 },
  },
  {
    title: "Scores and loss",
    text:
      "The tokens have become one vector, and a matrix product gives a score for each class. Softmax turns the scores into " +
      "probabilities, and the loss is minus the logarithm of the probability of the label.",
    question: "How large is the loss if the model gives the right class a probability of 1 / e?",
    answer: "1, since -ln(1/e) = 1. With certainty it would be 0.",
    go: { view: "head", mode: "forward" },
  },
  {
    title: "The backward pass begins",
    text:
      "Choose as label what you meant to draw. The gradient of the scores is the list of probabilities minus the target, " +
      "which is 1 for the label and 0 for all others. The whole backward pass starts with these few numbers.",
    question: "Which of them is negative?",
    answer: "Only that of the label: to lower the loss, its score has to rise, and all others have to fall.",
    go: { view: "head", mode: "backward" },
  },
  {
    title: "Gradients flow back through the stream",
    text:
      "The same table as before, but each cell now says how the loss would change with that number. At each addition the " +
      "gradient goes to both sides, so the first block hears from the loss directly.",
    question: "Are the gradients of the first block much smaller than those of the last?",
    answer: "No. Without the residual connections they would shrink from block to block.",
    go: { view: "stream", mode: "backward" },
  },
  {
    title: "Back through attention",
    text:
      "da says how the loss would change if a token paid a little more attention to another one; ds is what is left of it " +
      "after softmax, whose rows must still sum to 1.",
    question: "What do the numbers of a row of ds add up to?",
    answer: "0: if one weight grows, others must shrink. Click a cell and see the term that does it.",
    go: { view: "attention", mode: "backward", block: 0, head: 0 },
  },
  {
    title: "Down to the pixels",
    text:
      "The gradient of every pixel: where a little more ink would raise the loss, and where it would lower it. It holds for " +
      "small changes of this image only.",
    question: "Where would more ink help the model most?",
    answer: "At the bluest pixels: there the loss falls when the pixel becomes lighter.",
    go: { view: "patches", mode: "backward" },
  },
  {
    title: "Prove it",
    text:
      "Click any number and then “Prove it”. The number is changed a little, the whole model runs again, and the loss is drawn as a " +
      "curve. Its slope must be the gradient that the backward pass computed by its formulas. Then break the backward pass.",
    question: "Which mistake is the hardest to see by eye?",
    answer: "A missing factor or term leaves gradients that look plausible. Only the comparison finds it.",
    go: { view: "block", mode: "forward", block: 0 },
  },
  {
    title: "Learn",
    text:
      "Take one step of gradient descent on your drawing. The loss falls. Take ten, and look at the price: what the model " +
      "knew about other drawings. Undo brings back the same bits.",
    question: "Why is training done on many images at once?",
    answer: "A step for one image helps that image only. The average gradient of many images keeps what they have in common.",
    go: { view: "learn", mode: "forward" },
  },
];

let stop_ = null; // the number of the current stop, from 1, or null

function showTour(n) {
  stop_ = n >= 1 && n <= TOUR.length ? n : null;
  const box = document.getElementById("tour");
  box.hidden = stop_ === null;
  document.body.classList.toggle("touring", stop_ !== null);
  if (stop_ === null) return show();
  const { title, text, question, answer, go } = TOUR[stop_ - 1];
  Object.assign(chosen, go);
  const button = (label, target, disabled) =>
    el("button", { type: "button", disabled, onclick: () => showTour(target) }, label);
  box.replaceChildren(
    el("h2", {}, `${stop_} of ${TOUR.length}: ${title}`),
    el("p", {}, text),
    el("details", {}, el("summary", {}, question), el("p", {}, answer)),
    el(
      "p",
      { class: "buttons" },
      button("Back", stop_ - 1, stop_ === 1),
      button("Next", stop_ + 1, stop_ === TOUR.length),
      button("End the tour", 0, false),
    ),
  );
  const shown = show();
  // On a narrow screen the view is below the drawing.
  if (innerWidth <= 720) document.getElementById("stage").scrollIntoView();
  return shown;
}
