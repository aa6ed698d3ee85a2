// Start: read the data that stands in the page.

(() => {
  const content = JSON.parse(document.getElementById("data").textContent);
  const root = document.getElementById("page");
  root.replaceChildren();
  if (content.kind === "trace") tracePage(root, content);
  else if (content.kind === "comparison") comparisonPage(root, content);
  else influencePage(root, content);
})();
