"""What the benchmarks share: results, the installation that they measure, its peers, and bare programs to compare with."""
