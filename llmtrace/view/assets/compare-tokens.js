// One site on one prompt, token by token: the error as a shade and a curve, and how large the reference's stream is there.

const STRIP = { inherited: "inherited error", local: "local error" };

/** Strips of a candidate: `go(site)` shows the layer of a site, `show(prompt, token)` a token. */
function tokenStrips(candidate, prompts, norms) {
  const strips = candidate.strips.map((strip) => ({ ...strip, local: unpack(strip.local).values, inherited: unpack(strip.inherited).values }));
  const sites = [...new Set(strips.map((strip) => strip.site))];
  const state = { site: sites[sites.length - 1], prompt: 0, token: 0, measure: "inherited" };
  const body = el("div");
  const node = section("strip", "Token by token", "relative errors of every token where a block ends, and how large the reference’s stream is there", body);
  const normsOf = new Map(norms.map((each) => [`${each.site} ${each.prompt}`, unpack(each.norms).values]));

  function draw() {
    if (!strips.length) {
      body.replaceChildren(el("p", { class: "of", text: "The candidate shows neither the stream where a block ends nor the logits." }));
      return;
    }
    const strip = strips.find((each) => each.site === state.site && each.prompt === state.prompt);
    const ran = prompts[state.prompt];
    const controls = el("div", { class: "controls" },
      chooser("site", sites.map((site) => [site, site]), state.site, (site) => set({ site })),
      chooser("prompt", prompts.map((prompt, at) => [String(at), `${prompt.name} (${prompt.tokens.length} tokens)`]), state.prompt, (at) => set({ prompt: Number(at), token: 0 })),
      toggles("Shade by", Object.entries(STRIP), state.measure, (measure) => set({ measure })));
    const errors = strip ? strip[state.measure] : [];
    if (!errors.length) {
      const why = state.measure === "local" ? "could not be judged" : "is not shown by the reference";
      body.replaceChildren(controls, el("p", { class: "of", text: `${state.site} ${why} on this prompt.` }));
      return;
    }
    const sizes = normsOf.get(`${state.site} ${state.prompt}`) || null;
    const middle = sizes ? median(sizes) : 0;
    const describe = (place) => {
      const rows = [["position", String(place)]];
      for (const [name, text] of Object.entries(STRIP)) rows.push([text, strip[name].length ? el(name === state.measure ? "b" : "span", { class: name === state.measure ? "exact" : null, text: errorText(strip[name][place], 4) }) : "–"]);
      if (sizes) rows.push(["‖x‖ in the reference", `${num(sizes[place], 4)}, ${num(sizes[place] / middle, 2)} × the median`]);
      return rows.concat(tokenCard(ran.tokens[place]));
    };
    const line = tokenLine(ran.tokens, { choose: (token) => set({ token }), describe, label: "Tokens. Enter chooses one.", chosen: "chosen" });
    const top = strongest(errors.filter((value) => value !== Infinity));
    line.shade(errors, top || 1, state.token, errors.length - 1); // where nothing but infinite is, that is the darkest
    const told = describe(state.token).map(([name, value]) => el("span", {}, el("span", { class: "unit", text: `${name} ` }), typeof value === "string" ? value : value.textContent));
    const had = body.contains(document.activeElement) && document.activeElement.closest(".token");
    body.replaceChildren(controls, el("p", { class: "told", "aria-live": "polite" }, ...told), el("div", { class: "prompt" }, line.node),
      top ? legend(top, false, `${STRIP[state.measure]}, relative`) : "", stripPlot(strip, sizes, state.token, describe, ran.tokens, (token) => set({ token })));
    if (had) line.node.querySelector('[aria-selected="true"]').focus();
  }
  function set(change) {
    const focused = document.activeElement;
    const label = body.contains(focused) ? focused.getAttribute("aria-label") || focused.textContent : null;
    Object.assign(state, change);
    draw();
    if (label && !body.contains(document.activeElement)) {
      const again = [...body.querySelectorAll("select, button")].find((each) => (each.getAttribute("aria-label") || each.textContent) === label);
      if (again) again.focus();
    }
  }
  draw();
  return {
    node,
    /** The strip of a site's block; a site outside of blocks has its own, or none, and then the one that is shown stays. */
    go(site) {
      const wanted = site.layer === null ? site.site : `blocks.${site.layer}.resid_post`;
      if (sites.includes(wanted)) set({ site: wanted });
    },
    show(prompt, token) {
      set({ prompt, token });
      node.scrollIntoView({ block: "nearest" });
    },
  };
}

function median(values) {
  const order = [...values].sort((a, b) => a - b);
  return (order[Math.floor((order.length - 1) / 2)] + order[Math.ceil((order.length - 1) / 2)]) / 2;
}

/** Errors above, sizes below, both logarithmic, along the tokens. */
function stripPlot(strip, sizes, chosen, describe, tokens, choose) {
  const count = tokens.length;
  const step = Math.max(2, Math.min(18, Math.floor(980 / count)));
  const wide = count * step, high = 110, low = sizes ? 70 : 0, gap = sizes ? 22 : 0;
  const scale = logScale([...strip.local, ...strip.inherited], -20);
  const root = svg("svg", {
    class: "map strip", width: GUTTER + wide + 8, height: high + gap + low + 34, viewBox: `0 -8 ${GUTTER + wide + 8} ${high + gap + low + 34}`, role: "img",
    "aria-label": `Errors of ${count} tokens at ${strip.site}`,
  });
  const x = (place) => GUTTER + (place + 0.5) * step;
  const axis = (bottom, top, offset, height) => {
    const every = Math.max(1, Math.ceil((top - bottom) / 5));
    for (let decade = bottom; decade <= top; decade += every) {
      const at = offset + (1 - (decade - bottom) / (top - bottom)) * height;
      root.append(svg("path", { class: "rule", d: `M${GUTTER} ${at}h${wide}` }), svg("text", { class: "axis", x: GUTTER - 8, y: at, "text-anchor": "end", "dominant-baseline": "central", text: power(decade) }));
    }
  };
  axis(scale.bottom, scale.top, 0, high);
  const dots = (values, draw) => values.forEach((value, place) => value > 0 && root.append(draw(x(place), (1 - scale.share(value)) * high)));
  const radius = Math.max(1.2, Math.min(3, step / 2));
  dots(strip.local, (cx, cy) => svg("rect", { class: "dot local", x: cx - radius, y: cy - radius, width: 2 * radius, height: 2 * radius }));
  dots(strip.inherited, (cx, cy) => svg("circle", { class: "dot full", cx, cy, r: radius }));
  if (sizes) {
    const size = logScale([...sizes], -20);
    axis(size.bottom, size.top, high + gap, low);
    const thick = step > 3 ? step - 1 : step;
    const columns = [...sizes].map((value, place) => `M${x(place) - thick / 2} ${high + gap + low}v${-Math.max(1, size.share(value) * low)}h${thick}v${Math.max(1, size.share(value) * low)}z`);
    root.append(svg("path", { class: "column", d: columns.join("") }));
  }
  root.append(svg("path", { class: "chosen", d: `M${x(chosen)} 0V${high + gap + low}` }));
  const every = [1, 2, 5, 10, 20, 50, 100, 200].find((some) => some * step >= 30) || 500;
  for (let place = 0; place < count; place += every) root.append(svg("text", { class: "axis", x: x(place), y: high + gap + low + 18, "text-anchor": "middle", text: place }));
  root.append(svg("text", { class: "axis", x: GUTTER - 8, y: high + gap + low + 18, "text-anchor": "end", text: "position" }));
  const placeOf = (event) => Math.floor((event.clientX - root.getBoundingClientRect().left - GUTTER) / step);
  root.addEventListener("pointermove", (event) => {
    const place = placeOf(event);
    if (place < 0 || place >= count) hideTip();
    else showTip({ left: event.clientX, top: event.clientY - 10, bottom: event.clientY + 10 }, tokenText(tokens[place]), describe(place));
  });
  root.addEventListener("pointerleave", hideTip);
  root.addEventListener("click", (event) => placeOf(event) >= 0 && placeOf(event) < count && choose(placeOf(event)));
  const keys = [["circle", "inherited"], ["square", "local"]].map(([shape, text]) => el("span", { class: "key" }, sample(shape, "none"), text));
  return el("div", {}, el("div", { class: "scroll" }, root), el("p", { class: "legend" }, ...keys, sizes ? el("span", { class: "key", text: "columns: ‖x‖ of the reference’s stream" }) : null, ...offScale([...strip.local, ...strip.inherited])));
}
