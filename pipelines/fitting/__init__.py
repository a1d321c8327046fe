"""From a store to runs: heads, support vector machines, sweeps."""
