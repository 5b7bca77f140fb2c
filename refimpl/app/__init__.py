"""The one place that puts the parts together: homes, conductor processes, operations, recovery."""
