"""`python -m fasterseg_core`: reads published files and tables, also as `fasterseg arch` and `fasterseg lut`."""

import argparse
import json
import sys
from pathlib import Path

from fasterseg_core.config import Role
from fasterseg_core.derive import derive
from fasterseg_core.latency import balanced_weights, sensitivities, space_latency
from fasterseg_core.latency_table import LatencyTable, MissingLatencyError
from fasterseg_core.published import read_latency_table, read_relaxation, with_free_resizing
from fasterseg_core.reference_rule import derive_by_reference
from fasterseg_core.relaxation import Relaxation
from fasterseg_core.search_space import BRANCH_PAIRS, SearchSpace

RULES = {"paper": derive, "reference": derive_by_reference}
PAIRS = {f"{first}+{second}": (first, second) for first, second in BRANCH_PAIRS}


def main(arguments: list[str]) -> int:
    """Writes the JSON document of a published file; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        document = options.run(options)
        text = json.dumps(document, indent=2)
        if options.output is None:
            print(text)
        else:
            options.output.write_text(f"{text}\n")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fasterseg", description="Convert files of the published FasterSeg.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    arch = kinds.add_parser("arch", help="derive an architecture").add_subparsers(required=True).add_parser(
        "import", help="derive an architecture from published search parameters"
    )  # fmt: skip
    arch.set_defaults(run=_architecture)
    arch.add_argument("file", type=Path, metavar="FILE", help="arch_<n>.pt of the published code")
    arch.add_argument("--rule", choices=RULES, default="paper", help="how to derive: by the paper, or as its code does")
    arch.add_argument("--branches", choices=PAIRS, default="16+32", help="rates of the branches")
    tables = kinds.add_parser("lut", help="latency tables").add_subparsers(required=True)
    lut = tables.add_parser("import", help="convert a published latency table")
    lut.set_defaults(run=_table)
    lut.add_argument("file", type=Path, metavar="FILE", help="latency_lookup_table*.npy of the published code")
    lut.add_argument("--device", default="GTX 1080 Ti", help="what the table was measured on")
    lut.add_argument(
        "--free-resizing",
        action="store_true",
        help="price upsampling and concatenation, which these tables lack, at 0 ms, as the published estimate does",
    )
    gaps = tables.add_parser("sensitivities", help="Table 2 of a table, and the weights of eq. 3 that balance it")
    gaps.set_defaults(run=_sensitivities)
    gaps.add_argument("file", type=Path, metavar="FILE", help="a table's JSON, as `fasterseg lut export` writes it")
    gaps.add_argument("--layers", type=int, default=SearchSpace().num_layers, help="of the search space")
    gaps.add_argument("--ratios", type=int, nargs="+", default=SearchSpace().expansion_ratios, help="of the same")
    for command in (arch, lut, gaps):
        command.add_argument("-o", "--output", type=Path, metavar="FILE", help="write here, not to standard output")
    return parser


def _architecture(options: argparse.Namespace) -> object:
    relaxation = read_relaxation(options.file)
    print(f"a {relaxation.role} of {relaxation.space.num_layers} layers, rule {options.rule}", file=sys.stderr)
    return RULES[options.rule](relaxation, PAIRS[options.branches]).architecture.to_document()


def _table(options: argparse.Namespace) -> object:
    published = read_latency_table(options.file, device=options.device)
    table = with_free_resizing(published.table, SearchSpace()) if options.free_resizing else published.table
    for key, reason in published.left_out.items():
        print(f"left out  {key}: {reason}", file=sys.stderr)
    print(f"table {table.digest[:12]} of {len(table.rows)} rows", file=sys.stderr)
    return table.to_document()


def _sensitivities(options: argparse.Namespace) -> object:
    try:
        table = LatencyTable.from_document(json.loads(options.file.read_text()))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{options.file} is no latency table: {error}") from error
    ratios = tuple(options.ratios)
    space = SearchSpace(num_layers=options.layers, expansion_ratios=ratios, student_ratio=ratios[len(ratios) // 2])
    relaxation = Relaxation(space, Role.STUDENT)
    try:
        gaps = sensitivities(relaxation, space_latency(space, relaxation, table))
    except MissingLatencyError as error:
        raise ValueError(f"{error}; give the --layers and --ratios that it was measured for") from error
    granularities = ("operators", "downsample_rates", "expansion_ratios")
    return {
        "sensitivity_ms": dict(zip(granularities, gaps, strict=True)),
        "granularity_weights": dict(zip(granularities, balanced_weights(gaps), strict=True)),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
