// Keys, enlarging, focus and announcements. Without this file every button still works, as a plain form.
"use strict";

const find = (selector, from = document) => from.querySelector(selector);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const ANSWERS = { 1: "left", ArrowLeft: "left", 2: "tie", ArrowDown: "tie", 3: "right", ArrowRight: "right" };

const say = (text) => { find("#said").textContent = (text || "").replace(/\s+/g, " ").trim(); };

function complain(text) {
  const trouble = find("#trouble");
  trouble.textContent = text;
  trouble.hidden = !text;
}

/* Both pictures are there: an answer by key can mean nothing else than them. */
const seen = () => all(".pictures img").every((image) => image.complete);

/* The pictures of the next pair, while this one is looked at. */
function preload() {
  for (const path of (find("#stage").dataset.preload || "").split(" ").filter(Boolean)) new Image().src = path;
}

/* Switched off where somebody uses speech input, or keys of their own (WCAG 2.1.4). */
const shortcuts = () => localStorage.getItem("shortcuts") !== "off";

function enlarge(link) {
  const zoom = find("#zoom");
  const group = all(link.classList.contains("compared") ? ".compared" : ".photographs .zoom");
  const show = (place) => {
    zoom.place = (place + group.length) % group.length;
    const chosen = group[zoom.place];
    find("img", zoom).src = chosen.href;
    find("img", zoom).alt = find("img", chosen).alt;
    find("strong", zoom).textContent = chosen.dataset.label;
  };
  zoom.step = (by) => show(zoom.place + by);
  zoom.from = link;
  show(group.indexOf(link));
  zoom.showModal();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a.zoom");
  const step = event.target.closest("[data-step]");
  const opens = event.target.closest("[data-opens]");
  const dialog = event.target.closest("dialog");
  if (link && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    enlarge(link);
  } else if (step) {
    find("#zoom").step(Number(step.dataset.step));
  } else if (opens) {
    find("#" + opens.dataset.opens).showModal();
  } else if (dialog && (event.target === dialog || event.target.closest("[data-closes], .zoomed"))) {
    dialog.close();
  }
});

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || !find("#questions")) return;
  const zoom = find("#zoom");
  if (zoom.open) {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") zoom.step(event.key === "ArrowLeft" ? -1 : 1);
    if (event.key === "z" || event.key === "Z") zoom.close();
    return;
  }
  if (find("dialog[open]") || !shortcuts()) return;
  const answer = ANSWERS[event.key];
  if (answer) {
    event.preventDefault();
    if (seen()) find(`.waiting [value="${answer}"]`).click();
  } else if (event.key === "Backspace") {
    event.preventDefault();
    find("#undo").click();
  } else if (event.key === "z" || event.key === "Z") {
    enlarge(find(".compared"));
  } else if (event.key === "?") {
    find("#help").showModal();
  }
});

document.addEventListener("change", (event) => {
  if (event.target.id === "shortcuts") localStorage.setItem("shortcuts", event.target.checked ? "on" : "off");
});

document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.requestConfig.verb === "post") find("#stage").setAttribute("aria-busy", "true");
});

document.addEventListener("htmx:afterRequest", (event) => {
  find("#stage").removeAttribute("aria-busy");
  if (event.detail.successful) return complain("");
  const status = event.detail.xhr.status;
  complain(
    status === 429 ? "A little too fast: this was not kept. Please try again in a moment."
      : status === 403 || status === 404 ? "This was not kept. Please load the page again."
        : "No connection: this was not kept. Please try again.",
  );
});

let pair;
document.addEventListener("htmx:afterSwap", () => {
  const stage = find("#stage");
  if (!stage.dataset.say) return;
  say(stage.dataset.say);
  preload();
  // The question, not its first answer: a ring around one answer would favour it.
  (find(".waiting") || stage).focus({ preventScroll: true });
  if (pair !== stage.dataset.pair) window.scrollTo({ top: 0, behavior: "instant" });
  pair = stage.dataset.pair;
});

document.addEventListener("DOMContentLoaded", () => {
  preload();
  pair = find("#stage").dataset.pair;
  const box = find("#shortcuts");
  if (box) box.checked = shortcuts();
  const zoom = find("#zoom");
  if (zoom) zoom.addEventListener("close", () => zoom.from.focus());
});
