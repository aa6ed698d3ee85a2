// The prompt as a line of tokens: shade and bar say how strong each source is, a ring says which one is the target.
// Arrows move, Enter or a click chooses.

const NUMBERS = 64; // up to so many tokens each has its number written below

/** `choose(position)` is called when a token is made the target; `describe(position)` gives the rows of its card. */
function tokenLine(tokens, { choose, describe, label, chosen = "target" }) {
  const long = tokens.length > NUMBERS;
  const line = el("div", { class: long ? "tokens long" : "tokens", role: "listbox", "aria-label": label, "aria-orientation": "horizontal" });
  const cells = tokens.map((token, place) => {
    const chip = el("span", { class: "chip" }, tokenText(token));
    const bar = el("span", { class: "bar" }, el("span"));
    const number = el("span", { class: "number" });
    const cell = el("div", { class: "token", role: "option", tabindex: "-1", "data-position": place, "aria-selected": "false" }, chip, bar, number);
    line.append(cell);
    if (token.runs.some((run, at) => at % 2 && run.includes("⏎"))) line.append(el("span", { class: "break", role: "presentation" }));
    return { cell, chip, bar: bar.firstChild, number, token };
  });
  let current = 0;

  function show(place) {
    const { cell, token, chip } = cells[place];
    showTip(chip.getBoundingClientRect(), tokenText(token), describe(place));
    cell.setAttribute("aria-describedby", "tip");
  }
  function move(place) {
    cells[current].cell.tabIndex = -1;
    current = Math.max(0, Math.min(cells.length - 1, place));
    cells[current].cell.tabIndex = 0;
    cells[current].cell.focus();
  }
  const placeOf = (event) => {
    const cell = event.target.closest(".token");
    return cell ? Number(cell.dataset.position) : null;
  };
  line.addEventListener("pointerover", (event) => placeOf(event) !== null && show(placeOf(event)));
  line.addEventListener("pointerleave", hideTip);
  line.addEventListener("focusin", (event) => placeOf(event) !== null && show(placeOf(event)));
  line.addEventListener("focusout", hideTip);
  line.addEventListener("click", (event) => {
    const place = placeOf(event);
    if (place === null) return;
    move(place);
    choose(place);
    show(place);
  });
  line.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10, Home: -Infinity, End: Infinity };
    if (event.key in steps) move(current + steps[event.key]);
    else if (event.key === "Enter" || event.key === " ") {
      choose(current);
      show(current);
    } else return;
    event.preventDefault();
  });

  return {
    node: line,
    /** Shade by `scores` (null: none is known) on the scale `top`; `target` is ringed, what follows `last` fades. */
    shade(scores, top, target, last = target) {
      cells.forEach(({ cell, chip, bar, number, token }, place) => {
        const score = scores ? scores[place] : null;
        const shade = scores ? shadeOf(score, top) : "p0";
        chip.className = `chip ${shade}`;
        bar.className = shade;
        bar.style.height = scores && top > 0 ? `${100 * Math.min(1, Math.abs(score || 0) / top)}%` : "0";
        number.textContent = !long && scores && place <= last ? num(score, 2) : "";
        cell.classList.toggle("target", place === target);
        cell.classList.toggle("later", place > last);
        cell.setAttribute("aria-selected", String(place === target));
        cell.setAttribute("aria-label", `position ${place}, ${token.text}${scores ? `, ${num(score, 3)}` : ""}${place === target ? `, ${chosen}` : ""}`);
      });
      cells[current].cell.tabIndex = -1;
      current = target;
      cells[current].cell.tabIndex = 0;
    },
  };
}
