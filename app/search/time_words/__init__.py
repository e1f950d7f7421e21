"""Words of time in a query ("beach July 2023", "去年夏天的海"): which days they mean, and what else is looked for."""
