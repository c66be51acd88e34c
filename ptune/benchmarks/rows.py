"""All rows of `ptune.bench step`, and the ones that others are compared with."""

from ptune.benchmarks.ours import OURS
from ptune.benchmarks.peers import PEERS
from ptune.benchmarks.products import products

ROWS = OURS | PEERS | {"matrix-products": products}
"""Functions of a Setting that make a Contender ready, by name."""
AS_RUN, EQUAL, FULL, FLOOR = "PEFT-prefix", "PEFT-prefix-no-dropout", "transformers-fine-tuning", "matrix-products"
"""The rows that all rows are compared with."""
