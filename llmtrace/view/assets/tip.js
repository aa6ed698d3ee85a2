// The card with numbers that follows the pointer and the keyboard, and what is read aloud.

const tip = el("div", { class: "tip", role: "tooltip", id: "tip", hidden: true });
const spoken = el("div", { class: "spoken", role: "status", "aria-live": "polite" });

/** Show `rows` of [label, value] under a title, beside the rectangle of whatever is pointed at. */
function showTip(box, title, rows) {
  tip.replaceChildren(el("div", { class: "title" }, title));
  const list = el("dl");
  for (const [label, value] of rows) {
    list.append(el("dt", { text: label }), el("dd", {}, typeof value === "string" ? document.createTextNode(value) : value));
  }
  tip.append(list);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const below = box.bottom + 8 + height < window.innerHeight || box.top < height + 8;
  tip.style.left = `${Math.max(6, Math.min(box.left, window.innerWidth - width - 6))}px`;
  tip.style.top = `${below ? box.bottom + 8 : box.top - height - 8}px`;
}

function hideTip() {
  tip.hidden = true;
}

document.addEventListener("scroll", hideTip, true);
document.addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
