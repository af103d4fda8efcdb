#!/usr/bin/env python3
"""Cycles that a processor we do not have would take for the inner loops, by llvm-mca.

    benchmarks/mca.py [--json]

Kernels of test/Codegen/inner-loops.mlir are compiled for each target; of every product the loop
over many rows and the loop over one row are cut out and given to llvm-mca, which simulates 100
iterations with all data in the first cache. Printed: cycles per multiply instruction (dot product
or fused multiply-add of one vector) beside the ideal, the reciprocal of the pipes that take it.
NEON loops over halves of a group; for int8 the scaling of the group stands outside that loop.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]
BIN = pathlib.Path(os.environ.get("BUILD", ROOT / "build")) / "bin"
# Processor: the target whose kernels it runs, and how many multiplies it starts each cycle (from the vendors'
# optimisation guides: Cortex-A76 has two 128-bit pipes, Neoverse-V2 four).
PROCESSORS = {"cortex-a76": ("aarch64-dotprod", "aarch64", 2), "neoverse-v2": ("aarch64-i8mm", "aarch64", 4)}
MULTIPLY = re.compile(r"^(sdot|smmla|fmla|vpdpbusd|vfmadd\w+|vdpbf16ps)\b")
JUMP = re.compile(r"^(j[a-z]+|b\.[a-z]+|cbn?z|tbn?z)\s.*?(\.LBB\w+)$")


def loops(assembly):
    """(function, lines) of every basic block that jumps back to itself."""
    function = label = None
    lines = []
    for line in assembly.splitlines():
        if match := re.match(r"^(\w+):", line):
            function, label, lines = match[1], None, []
        elif match := re.match(r"^(\.LBB\w+):", line):
            label, lines = match[1], []
        elif line.startswith("\t") and not line.startswith("\t."):
            text = re.split(r"//|\s# ", line)[0].strip()
            lines.append(text)
            jump = JUMP.match(text)
            if jump and jump[2] == label:
                yield function, list(lines)


def simulate(lines, arch, cpu):
    """Cycles of one iteration."""
    body = "\n".join(line for line in lines if not JUMP.match(line)) + "\n"
    out = subprocess.run(["llvm-mca-22", f"-mtriple={arch}-linux-gnu", f"-mcpu={cpu}", "-iterations=100", "--json"],
                         input=body, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(out)["CodeRegions"][0]["SummaryView"]["TotalCycles"] / 100


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    records = []
    for cpu, (target, arch, each_cycle) in PROCESSORS.items():
        module = subprocess.run([BIN / "isthmus-opt", ROOT / "test/Codegen/inner-loops.mlir",
                                 f"--convert-fm-to-sched=target={target}"], capture_output=True, check=True).stdout
        assembly = subprocess.run([BIN / "isthmus-translate", "--kernels-to-asm"], input=module, capture_output=True,
                                  check=True).stdout.decode()
        best = {}  # of each kernel the largest loop that prefetches (one row), and that does not
        for function, lines in loops(assembly):
            count = sum(bool(MULTIPLY.match(line)) for line in lines)
            rows = "one row" if any(re.match(r"prf", line) for line in lines) else "many rows"
            if not function.startswith("linear_") or count <= best.get((function, rows), (0,))[0]:
                continue
            best[function, rows] = (count, lines)
        for (function, rows), (count, lines) in best.items():
            cycles = simulate([line for line in lines if not line.startswith("prf")], arch, cpu)
            records.append(dict(processor=cpu, kernel=function, rows=rows, instructions=len(lines), multiplies=count,
                                cycles_per_multiply=cycles / count, ideal=1 / each_cycle))
    if args.json:
        print(json.dumps(records, indent=1))
        return
    for r in records:
        print(f"{r['processor']:<12} {r['kernel']:<22} {r['rows']:<10} {r['instructions']:4} instructions, "
              f"{r['multiplies']:3} multiplies: {r['cycles_per_multiply']:.2f} cycles each, ideal {r['ideal']:.2f} "
              f"({r['ideal'] / r['cycles_per_multiply']:.0%})")


if __name__ == "__main__":
    main()
