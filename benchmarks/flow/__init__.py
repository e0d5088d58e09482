"""Quality of the strategies at equal budgets."""
