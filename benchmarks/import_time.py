"""`import vqvae2` beside `import torch`, in turn, in fresh processes.

python benchmarks/import_time.py [repeats]
"""

import statistics
import subprocess
import sys
import time


def seconds(module: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - begun


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    seconds("vqvae2")  # writes the byte code
    pairs = [(seconds("torch"), seconds("vqvae2")) for _ in range(repeats)]
    torch, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"import torch   {torch:.3f} s  (median of {repeats}, in turn)")
    print(f"import vqvae2  {ours:.3f} s")
    print(f"ratio          {ours / torch:.3f}")


if __name__ == "__main__":
    main()
