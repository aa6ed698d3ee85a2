// Errors against layers, on a logarithmic axis: what is inherited, what each layer adds, and what rounding explains.

/** The curves of one kind of site, or of the stream with the worst site of each block. */
function errorCurve(sites, choose) {
  const layers = layersOf(sites);
  const state = { site: null, own: false };
  const holder = el("div");
  const switches = el("div");
  const chosenKind = () => (state.site && state.site.layer !== null ? state.site.kind : null);

  function series() {
    const kind = state.own && chosenKind();
    if (kind) {
      const same = sites.filter((site) => site.kind === kind);
      return {
        title: kind, inherited: pointsOf(same, inheritedOf), local: pointsOf(same, localOf), allowed: pointsOf(same.filter(judged), (site) => site.tolerance),
        names: ["inherited", "local", "rounding explains"],
      };
    }
    const worst = Array.from({ length: layers }, (_, layer) => sites.filter((site) => site.layer === layer && judged(site)).sort(ORDERS.local)[0]).filter(Boolean);
    return {
      title: "the stream, and the worst site of each block", inherited: pointsOf(sites.filter((site) => site.kind === "resid_post"), inheritedOf),
      local: pointsOf(worst, localOf), allowed: [], names: ["inherited by the stream", "largest local error in the block"],
    };
  }
  const inheritedOf = (site) => site.inherited_error;
  const pointsOf = (some, of) => some.map((site) => [site.layer, of(site), site]).filter(([, value]) => value !== null);

  function draw() {
    const curves = series();
    const off = [curves.inherited, curves.local].some((points) => points.some(([, value]) => value > 0));
    holder.replaceChildren(off ? plot(curves, layers, choose) : el("p", { class: "of", text: "Nothing is off by anything here." }));
  }
  function mark(site) {
    state.site = site;
    const kind = chosenKind();
    switches.replaceChildren(toggles("Curves", [[false, "stream and blocks"], ...(kind ? [[true, `only ${kind}`]] : [])], Boolean(kind) && state.own, (own) => {
      state.own = own;
      draw();
    }));
    draw();
  }
  return { node: section("curve", "Error against layer", "log axis, relative to the signal", switches, holder), mark };
}

function plot({ title, inherited, local, allowed, names }, layers, choose) {
  const width = columnWidth(layers);
  const wide = (layers + 2) * width, high = 168;
  const scale = logScale([...inherited, ...local, ...allowed].map(([, value]) => value), -20);
  const decades = scale.top - scale.bottom;
  const x = (layer) => GUTTER + (layer + 1.5) * width - 0.5;
  const y = (value) => (1 - scale.share(value)) * high;
  const root = svg("svg", {
    class: "map curves", width: GUTTER + wide + 8, height: high + 34, viewBox: `0 -8 ${GUTTER + wide + 8} ${high + 34}`, role: "img",
    "aria-label": `Error against layer, ${title}. Inherited: ${spokenOf(inherited)}. Local: ${spokenOf(local)}.`,
  });
  const every = Math.ceil(decades / 8);
  for (let decade = scale.bottom; decade <= scale.top; decade += every) {
    const at = y(10 ** decade);
    root.append(svg("path", { class: "rule", d: `M${GUTTER} ${at}h${wide}` }), svg("text", { class: "axis", x: GUTTER - 8, y: at, "text-anchor": "end", "dominant-baseline": "central", text: power(decade) }));
  }
  const shown = (points) => points.filter(([, value]) => value > 0);
  const line = (points, name) => root.append(svg("path", { class: `line ${name}`, d: shown(points).map(([layer, value], at) => `${at ? "L" : "M"}${x(layer)} ${y(value)}`).join("") }));
  line(allowed, "allowed");
  line(local, "local");
  line(inherited, "inherited");
  for (const [points, name, shape] of [[local, names[1], "square"], [inherited, names[0], "circle"]]) {
    for (const [layer, value, site] of shown(points)) {
      const dot = shape === "circle" ? svg("circle", { class: "dot", cx: x(layer), cy: y(value), r: 3.2 }) : svg("rect", { class: "dot", x: x(layer) - 3, y: y(value) - 3, width: 6, height: 6 });
      dot.addEventListener("pointerenter", () => showTip(dot.getBoundingClientRect(), site.site, [[name, errorText(value)]]));
      dot.addEventListener("pointerleave", hideTip);
      dot.addEventListener("click", () => choose(site));
      root.append(dot);
    }
  }
  for (const layer of everyLayer(layers, width)) root.append(svg("text", { class: "axis", x: x(layer), y: high + 20, "text-anchor": "middle", text: layer }));
  root.append(svg("text", { class: "axis", x: GUTTER - 8, y: high + 20, "text-anchor": "end", text: "layer" }));
  const keys = [["circle", "inherited", names[0]], ["square", "local", names[1]], ...(allowed.length ? [["none", "allowed", names[2]]] : [])];
  const legendOf = keys.map(([shape, line, text]) => el("span", { class: "key" }, sample(shape, line), text));
  return el("div", {}, el("div", { class: "scroll" }, root), el("p", { class: "legend" }, ...legendOf, ...offScale([...inherited, ...local].map(([, value]) => value))));
}

/** A piece of a line with its point, for the legend. */
function sample(shape, line) {
  const root = svg("svg", { class: "map sample", width: 26, height: 10, "aria-hidden": "true" }, svg("path", { class: `line ${line}`, d: "M0 5h26" }));
  if (shape === "circle") root.append(svg("circle", { class: line === "none" ? "dot full" : "dot", cx: 13, cy: 5, r: 3.2 }));
  if (shape === "square") root.append(svg("rect", { class: line === "none" ? "dot local" : "dot", x: 10, y: 2, width: 6, height: 6 }));
  return root;
}

function spokenOf(points) {
  if (!points.length) return "none";
  const [first, last] = [points[0], points[points.length - 1]];
  return `${errorText(first[1])} in layer ${first[0]}, ${errorText(last[1])} in layer ${last[0]}`;
}
