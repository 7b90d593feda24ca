"""`python -m fasterseg_core`: converts published files, also as `fasterseg arch import` and `fasterseg lut import`."""

import argparse
import json
import sys
from pathlib import Path

from fasterseg_core.derive import derive
from fasterseg_core.published import read_latency_table, read_relaxation, with_free_resizing
from fasterseg_core.reference_rule import derive_by_reference
from fasterseg_core.search_space import BRANCH_PAIRS, SearchSpace

RULES = {"paper": derive, "reference": derive_by_reference}
PAIRS = {f"{first}+{second}": (first, second) for first, second in BRANCH_PAIRS}


def main(arguments: list[str]) -> int:
    """Writes the JSON document of a published file; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        document = _table(options) if options.kind == "lut" else _architecture(options)
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
    arch.add_argument("file", type=Path, metavar="FILE", help="arch_<n>.pt of the published code")
    arch.add_argument("--rule", choices=RULES, default="paper", help="how to derive: by the paper, or as its code does")
    arch.add_argument("--branches", choices=PAIRS, default="16+32", help="rates of the branches")
    lut = kinds.add_parser("lut", help="convert a latency table").add_subparsers(required=True).add_parser(
        "import", help="convert a published latency table"
    )  # fmt: skip
    lut.add_argument("file", type=Path, metavar="FILE", help="latency_lookup_table*.npy of the published code")
    lut.add_argument("--device", default="GTX 1080 Ti", help="what the table was measured on")
    lut.add_argument(
        "--free-resizing",
        action="store_true",
        help="price upsampling and concatenation, which these tables lack, at 0 ms, as the published estimate does",
    )
    for command in (arch, lut):
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
