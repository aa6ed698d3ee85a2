// Kinds of sites by layers, coloured by one of three numbers.

const MEASURES = {
  local: { name: "local error", unit: "local error, relative: this step alone", of: localOf, text: errorText },
  inherited: { name: "inherited error", unit: "inherited error, relative: all up to here", of: (site) => site.inherited_error, text: errorText },
  times: { name: "× rounding", unit: "times what rounding explains", of: timesOf, text: timesText },
};

/** A map of all sites; `choose(site)` is called with the one that is chosen, and `mark(site)` outlines it. */
function siteMap(sites, choose) {
  const state = { measure: "local", site: null };
  const kinds = [...new Set(sites.map((site) => site.kind))];
  const layers = layersOf(sites);
  const first = sites.findIndex((site) => site.layer !== null);
  const cells = new Map(sites.map((site) => [`${site.kind} ${columnOf(site)}`, site]));
  const holder = el("div");
  let map = null;

  function columnOf(site) {
    return site.layer !== null ? site.layer + 1 : first >= 0 && site.place > first ? layers + 1 : 0;
  }
  const at = (row, column) => cells.get(`${kinds[row]} ${column}`);
  function draw() {
    const measure = MEASURES[state.measure];
    const scale = logScale(sites.map(measure.of));
    const value = (row, column) => {
      const site = at(row, column);
      if (!site) return undefined;
      const number = measure.of(site);
      return number === null ? null : scale.share(number);
    };
    const width = columnWidth(layers);
    const numbered = everyLayer(layers, width).filter((layer) => (layers - layer) * width >= 22); // no number runs into `out`
    const ticks = [[0, width < 13 ? "" : "in"], ...numbered.map((layer) => [layer + 1, String(layer)]), [layers + 1, "out"]];
    map = heatMap({
      rows: kinds.length, columns: layers + 2, width, height: 15, top: 1, value, ticks, columnTitle: "layer", rowLabel: (row) => kinds[row],
      flag: (row, column) => at(row, column).status === "violated", mark: state.site ? placeOf(state.site) : null, start: placeOf(sites[0]),
      title: (row, column) => at(row, column).site,
      describe: (row, column) => {
        const site = at(row, column);
        return [...Object.values(MEASURES).map(({ name, of, text }) => [name, text(of(site))]), ["status", STATUS[site.status]]];
      },
      choose: (row, column) => choose(at(row, column)), label: `Kinds of sites by layers, ${measure.unit}; arrows move between cells, Enter chooses`,
    });
    holder.replaceChildren(map, logLegend(scale, measure.unit, [["●", "diverges"], ["╱", state.measure === "inherited" ? "not shown" : "not judged"]]));
  }
  const placeOf = (site) => [kinds.indexOf(site.kind), columnOf(site)];
  draw();
  const options = Object.entries(MEASURES).map(([value, { name }]) => [value, name]);
  const switches = toggles("Colour by", options, state.measure, (measure) => {
    state.measure = measure;
    draw();
  });
  return {
    node: section("picture", "Kinds of sites × layers", "", switches, holder),
    mark(site) {
      state.site = site;
      map.mark(...placeOf(site));
    },
  };
}

/** Layers that have a label below the map, so that labels keep a distance. */
function everyLayer(layers, width) {
  const step = [1, 2, 5, 10, 20, 50, 100].find((every) => every * width >= 22) || 200;
  return Array.from({ length: Math.ceil(layers / step) }, (_, at) => at * step);
}
