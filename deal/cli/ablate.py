"""Compare settings of the training, with several seeds.

Variants are trained and measured. The plan is a YAML file with the shared settings of deal train, the variants, the
seeds and the evaluations. Stopped at any point, the same command continues. The output folder gets table.md with means
and deviations, results.csv and plot.png, beside the folders of the runs.
"""

from __future__ import annotations

import dataclasses

from jsonargparse import ArgumentParser, Namespace

from deal.cli import options

COMMON = ("plan", "output", *options.MACHINE)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--plan", type=str, required=True, metavar="FILE", help="a YAML file, see deal.ablation.plan")
    parser.add_argument(
        "-o", "--output", type=str, required=True, metavar="FOLDER", help="folder for the runs and the results"
    )
    options.add_machine(parser)


def run(parsed: Namespace) -> int:
    from deal.ablation.plan import read_plan
    from deal.ablation.runner import run_plan
    from deal.ablation.tables import as_markdown
    from deal.evaluate.report import check_folder

    options.set_threads(parsed.threads)
    plan = read_plan(parsed.plan)
    if parsed.device != "auto":
        plan = dataclasses.replace(plan, settings={**plan.settings, "device": parsed.device})
    check_folder(parsed.output)
    print(as_markdown(run_plan(plan, parsed.output, progress=not parsed.quiet)))
    print(f"{parsed.output}: table.md, results.csv, plot.png")
    return 0
