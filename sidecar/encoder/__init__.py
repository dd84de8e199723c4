"""From weights to a runnable graph: families, recipes and the runtime."""
