"""Makes digits.csv.gz and iris.csv.gz beside this file from the data in scikit-learn's wheel:

    pip download scikit-learn --no-deps && python3 make.py scikit_learn-*.whl

The same wheel and zlib give the same bytes; `embedded.rs` checks the content.
"""

import gzip
import sys
import zipfile
from pathlib import Path


def keep(name, header, rows):
    text = "".join(",".join(row) + "\n" for row in [header, *rows])
    packed = gzip.compress(text.encode(), compresslevel=9, mtime=0)
    Path(__file__).with_name(name).write_bytes(packed)


with zipfile.ZipFile(sys.argv[1]) as wheel:
    digits = gzip.decompress(wheel.read("sklearn/datasets/data/digits.csv.gz")).decode().split()
    iris = wheel.read("sklearn/datasets/data/iris.csv").decode().split()

pixels = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
rows = [[str(int(float(cell))) for cell in line.split(",")] for line in digits]
keep("digits.csv.gz", [*pixels, "digit"], rows)

# Its first line: 150 rows, 4 columns, the names of the classes; labels are numbers of these names.
names = iris[0].split(",")[2:]
sizes = [f"{part} {size} (cm)" for part in ["sepal", "petal"] for size in ["length", "width"]]
rows = [line.split(",") for line in iris[1:]]
keep("iris.csv.gz", [*sizes, "species"], [[*row[:-1], names[int(row[-1])]] for row in rows])
