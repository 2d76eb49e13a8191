"""The life of a command: states, queue, delivery, results, history."""
