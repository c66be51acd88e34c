"""What `python -m ptune.bench` measures: each part has its options, `measure`, and the tables of what it found."""
