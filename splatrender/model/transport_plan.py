"""Exact optimal transport between two discrete distributions, by successive shortest paths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ROUNDING = 1e-14  # share of the supply that rounding may leave over


def transport_plan(supply: Array, demand: Array, cost: Array) -> Array:
    """Compute the optimal plan between two discrete distributions.

    Each augmentation sends as much as it can along the cheapest path in the residual graph, found
    by Dijkstra's algorithm on costs reduced by the dual prices.

    Args:
        supply: [n] > 0 of sum one.
        demand: [m] > 0 of sum one.
        cost: [n, m].

    Returns:
        [n, m] plan with these marginals.

    Example:
        >>> half = np.array([0.5, 0.5])
        >>> transport_plan(half, half, np.array([[1.0, 0.0], [0.0, 1.0]])).tolist()
        [[0.0, 0.5], [0.5, 0.0]]
    """
    supply_left, demand_left = supply.copy(), demand.copy()
    plan = np.zeros_like(cost)
    prices = _Prices(np.zeros(len(supply)), cost.min(axis=0).copy())
    rest = ROUNDING * supply.sum()
    while supply_left.sum() > rest and demand_left.sum() > rest:
        source = int(supply_left.argmax())
        tree = _cheapest_paths(source, demand_left, plan, cost, prices)
        reach = tree.columns[tree.end]
        prices.rows[:] += np.minimum(tree.rows, reach)
        prices.columns[:] += np.minimum(tree.columns, reach)
        amount = _augment(plan, tree, source, min(supply_left[source], demand_left[tree.end]))
        supply_left[source] -= amount
        demand_left[tree.end] -= amount
    return plan


@dataclass(frozen=True)
class _Prices:
    """Dual prices: reduced costs cost + rows − columns are >= 0, and 0 where the plan is used."""

    rows: Array
    columns: Array


@dataclass(frozen=True)
class _Paths:
    """Distances from a source to rows and columns, the way there, and the column at its end."""

    rows: Array
    columns: Array
    row_before: NDArray[np.int64]  # of a column
    column_before: NDArray[np.int64]  # of a row; -1: none
    end: int


def _cheapest_paths(
    source: int, demand_left: Array, plan: Array, cost: Array, prices: _Prices
) -> _Paths:
    """Find the cheapest path from a row to a column that has demand left (Dijkstra)."""
    rows, columns = np.full(len(cost), np.inf), np.full(len(demand_left), np.inf)
    row_before, column_before = np.full(len(columns), -1), np.full(len(rows), -1)
    done_rows, done_columns = np.zeros(len(rows), bool), np.zeros(len(columns), bool)
    rows[source] = 0.0
    while True:
        open_rows = np.where(done_rows, np.inf, rows)
        open_columns = np.where(done_columns, np.inf, columns)
        i, j = int(open_rows.argmin()), int(open_columns.argmin())
        if open_rows[i] <= open_columns[j]:
            done_rows[i] = True
            reduced = np.maximum(cost[i] + prices.rows[i] - prices.columns, 0.0)
            better = ~done_columns & (rows[i] + reduced < columns)
            columns[better], row_before[better] = (rows[i] + reduced)[better], i
            continue
        done_columns[j] = True
        if demand_left[j] > 0:
            return _Paths(rows, columns, row_before, column_before, j)
        back = (plan[:, j] > 0) & ~done_rows
        reduced = np.maximum(prices.columns[j] - cost[:, j] - prices.rows, 0.0)
        better = back & (columns[j] + reduced < rows)
        rows[better], column_before[better] = (columns[j] + reduced)[better], j


def _augment(plan: Array, paths: _Paths, source: int, amount: float) -> float:
    """Send mass along the path to its end, at most `amount`; return how much was sent."""
    steps = []
    row, column = int(paths.row_before[paths.end]), paths.end
    while True:
        steps.append((row, column, 1.0))
        if row == source and paths.column_before[row] < 0:
            break
        column = int(paths.column_before[row])
        steps.append((row, column, -1.0))
        amount = min(amount, plan[row, column])
        row = int(paths.row_before[column])
    for row, column, sign in steps:
        plan[row, column] = max(0.0, plan[row, column] + sign * amount)
    return amount
