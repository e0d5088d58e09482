"""Time splatrender's kernels and other rasterizers: python -m benchmarks.render.raster."""

from __future__ import annotations

import json

from benchmarks.render import cpu, gpu
from benchmarks.render.options import parse


def main() -> None:
    """Time on the chosen device, print the tables and write the figures."""
    options = parse(__doc__ or "")
    if options.device != "cpu":
        figures = gpu.time_gpu(options)
    elif options.isa == "all":
        figures = cpu.compare_isas(options)
    else:
        figures = cpu.time_cpu(options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
