// Whether a candidate gives its answers for the reference's reasons: motifs head by head, influence and the lens prompt by prompt.

/** The mechanisms of a candidate beside the reference's, where they were asked for. */
function mechanismSection(candidate, prompts) {
  const { mechanisms: found } = candidate;
  if (!found) return null;
  const parts = [el("p", { class: "headline", text: found.words })];
  if (found.motifs.length) parts.push(el("div", { class: "scroll" }, table(["motif", "rank correlation", "heads kept", "largest change", "lost", "gained"], found.motifs.map(motifRow), [1])));
  const numbers = [...new Set([...found.influence, ...found.lens].map((each) => each.prompt))].sort((a, b) => a - b);
  if (numbers.length) {
    const rows = numbers.map((number) => {
      const map = found.influence.find((each) => each.prompt === number);
      const lens = found.lens.find((each) => each.prompt === number);
      return [
        prompts[number].name, ...(map ? [map.method, num(map.mean), `${num(map.worst)} at ${map.worst_position}`] : ["–", "–", "–"]),
        ...(lens ? [num(lens.correlation), `${num(lens.largest)} at ${lens.largest_at}`, `${lens.settles_reference || "nowhere"}, ${lens.settles_candidate || "nowhere"}`] : ["–", "–", "–"]),
      ];
    });
    const heads = ["prompt", "influence by", "rank correlation", "lowest, at position", "lens", "largest change, nats", "settles (reference, candidate)"];
    parts.push(el("div", { class: "scroll" }, table(heads, rows, [2, 4])));
  }
  return section("mechanisms", "Mechanisms", found.prompts ? `motifs are scored on ${found.prompts}` : "", ...parts, notesOf(found.notes));
}

/** One motif: how far its heads agree, the one that changed most, and which are lost and gained. */
function motifRow({ motif, correlation, heads, gained }) {
  const change = (head) => Math.abs(head.candidate - head.reference);
  const moved = [...heads].sort((a, b) => change(b) - change(a))[0];
  const lost = heads.filter((head) => !head.kept).map((head) => head.node);
  return [
    motif, correlation === null ? "undefined" : num(correlation), `${heads.length - lost.length} of ${heads.length}`,
    moved ? `${moved.node} ${num(moved.reference)} → ${num(moved.candidate)}` : "", firstThree(lost), firstThree(gained),
  ];
}
