"""Prints what scipy and statsmodels say, for the tests of lab/src/stats: `python scripts/lab_statistics.py`.

Needs scipy and statsmodels. The output stands in lab/tests/statistics.rs.
"""

from itertools import combinations
from math import fsum

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

print("// Wilson: statsmodels.stats.proportion.proportion_confint(method='wilson')")
for successes, trials in [(0, 10), (10, 10), (7, 10), (69, 300), (237, 300), (1, 1000), (5000, 10000)]:
    low, high = proportion_confint(successes, trials, alpha=0.05, method="wilson")
    print(f"({successes}, {trials}, {low:.12f}, {high:.12f}),")

print("// McNemar: statsmodels mcnemar(exact=True)")
for b, c in [(0, 0), (0, 5), (3, 4), (10, 25), (3, 171), (40, 45), (600, 700), (1200, 1100)]:
    p = mcnemar([[0, b], [c, 0]], exact=True).pvalue
    print(f"({b}, {c}, {p:.12e}),")

print("// t: scipy.stats.t.ppf(0.975, degrees)")
for degrees in [1, 2, 5, 29, 30, 31, 60, 200, 1000]:
    print(f"({degrees}, {stats.t.ppf(0.975, degrees):.8f}),")

print("// Band: mean and scipy.stats.t.interval(0.95)")
for values in [[0.79, 0.78, 0.81], [1.0, 2.0], [0.5, 0.5, 0.5, 0.7]]:
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    print(f"(&{values}, {np.mean(values):.12f}, {low:.10f}, {high:.10f}),")

print("// pass@k: over every choice of k of n")
for n, c, k in [(5, 2, 1), (5, 2, 2), (5, 2, 3), (5, 2, 4), (8, 1, 4), (8, 0, 3), (10, 10, 1), (12, 3, 6)]:
    chosen = [any(i < c for i in some) for some in combinations(range(n), k)]
    found = fsum(chosen) / len(chosen)
    print(f"({n}, {c}, {k}, {found:.12f}),")

print("// Bootstrap of one seed's mean: scipy.stats.bootstrap(method='percentile'), 200000 draws")
values = np.array([1.0] * 30 + [0.0] * 70)
found = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=200000, batch=1000, random_state=1)
print(f"30 of 100: {found.confidence_interval.low:.4f} {found.confidence_interval.high:.4f}")

print("// Crossed bootstrap of three seeds on 100 problems: numpy, 100000 draws")
rng = np.random.default_rng(1)
table = np.array([[(p * 7 + s * 3) % 10 < 3 + 2 * s for p in range(100)] for s in range(3)], float)
seeds = rng.integers(0, 3, (100000, 3))
problems = rng.integers(0, 100, (100000, 100))
means = [table[np.ix_(s, p)].mean() for s, p in zip(seeds, problems)]
print(f"crossed: {table.mean():.6f} {np.quantile(means, 0.025):.4f} {np.quantile(means, 0.975):.4f}")
