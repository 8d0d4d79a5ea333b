"""Times of `import torch`, `import vqvae2` and `vqvae2 --help`, each in fresh processes.

python benchmarks/import_time.py [repeats]
"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import vqvae2": ["-c", "import vqvae2"],
    "from vqvae2 import Pipeline": ["-c", "from vqvae2 import Pipeline"],
    "vqvae2 --help": ["-m", "vqvae2", "--help"],
}


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    seconds(COMMANDS["from vqvae2 import Pipeline"])  # writes the byte code
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):  # in turn, so that other load on the machine affects all alike
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    print(f"medians of {repeats}, in turn")
    for name, values in times.items():
        print(f"{name:<28} {statistics.median(values):.3f} s")


if __name__ == "__main__":
    main()
