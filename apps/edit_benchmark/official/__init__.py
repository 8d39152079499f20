"""What the scripts of benchmarks compute from scores; each file has one benchmark's statistic."""
