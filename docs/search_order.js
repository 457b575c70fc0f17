// What the site's search shows first: pages for users, then the reference, then the specification. Sphinx copies this into
// its search, where it replaces the defaults, so all of them are stated.
const PAGE_POINTS = [
  [/^docs\/(architecture|benchmarks|hardening|tasks)/, 0],
  [/^docs\/(api|gallery)\//, 0],
  [/^docs\//, 12],
  [/^(specs\/|CHANGELOG)/, -4],
];

var Scorer = {
  score: ([page, , , , points]) => points + (PAGE_POINTS.find(([pages]) => pages.test(page)) ?? [, 0])[1],
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
