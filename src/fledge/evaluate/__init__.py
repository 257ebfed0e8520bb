"""What a model can do: tasks in, scores with intervals out (`stage`), side by side (`compare`), `metrics`."""
