"""A recipe chosen under shift against one chosen on clean rows, on rows that neither saw.

    RVF_ROOT=DIR python -m benchmarks.under_shift --data NAME --members c_standard_% c_share_%

Held-out rows are halved by group. On each half both recipes are chosen, the one on it as it is, the
other on it and all levels but one; both then decide the other half, as it is, at the levels, drawn
with another seed where they draw, and at the level that was kept out. `%` stands for the seed of a
training, of the halves and of what is kept out; intervals are paired, by group, and of all seeds
the mean of the same draws. The predictions are those of `python -m src robustness`, of both seeds.
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.bootstrap import bootstrap_scores, interval
from src.ensemble.align import Aligned, align
from src.ensemble.crossfit import Parts, make_parts
from src.ensemble.predictions import votes_of
from src.ensemble.search import Search
from src.ensemble.shift.chosen import choose
from src.ensemble.shift.conditions import CLEAN, ROBUSTNESS, AllConditions, Condition
from src.ensemble.shift.delivered import read_delivered
from src.ensemble.shift.mixture import HALF
from src.ensemble.tune import Tuned, tune
from src.metrics import METRICS, auc, score_of
from src.stratify import stratified_group_folds

DRAWN = ("noise", "jitter")  # levels that draw begin so
CHOSEN_SEED = 42
KINDS = ("clean-chosen", "shift-chosen")


@dataclass
class Proof:
    """What both recipes answer, each on the half that it did not see."""

    rows: Aligned
    kept_out: str
    levels: list[str]  # all but that one
    # condition -> for both recipes (n,) probs and decisions
    answers: dict[str, list[tuple[np.ndarray, np.ndarray]]]
    half: np.ndarray
    chosen: list[str]  # which rules, with their thresholds


def at_proof(rows: Aligned, levels: Sequence[str], seed: int) -> dict[str, Aligned]:
    """Return the rows at levels, those that draw with the other seed."""
    drawn = [level for level in levels if level.startswith(DRAWN)]
    fixed = [level for level in levels if level not in drawn]
    found = {**read_delivered(rows, fixed, CHOSEN_SEED).levels}
    found |= read_delivered(rows, drawn, seed).levels
    return {level: found[level] for level in levels}


def prove(
    data: str,
    scheme: str,
    members: Sequence[str],
    levels: Sequence[str],
    seed: int,
    proof_seed: int,
) -> Proof:
    """Choose on each half, and decide the other."""
    rows = align(data, scheme, members)
    half = stratified_group_folds(rows.label, rows.group, 2, seed)
    kept_out = str(np.random.default_rng(seed).choice(levels))
    seen = [level for level in levels if level != kept_out]
    for_choice = read_delivered(rows, seen, CHOSEN_SEED).levels
    for_proof = {CLEAN: rows, **at_proof(rows, levels, proof_seed)}
    answers = {
        name: [(np.empty(len(rows)), np.empty(len(rows), dtype=np.int64)) for _ in KINDS]
        for name in for_proof
    }
    search, said = Search(seed=seed), []

    def tune_on(some: Aligned, parts: Parts | None = None, own: Search = search) -> Tuned:
        return tune(some, search=own, by_fold=False, parts=parts)

    for side in (0, 1):
        inside = half == side
        some = rows.take(inside)
        parts = make_parts(some, seed)
        assert parts.part is not None
        at = {name: Condition(one.take(inside), parts.part) for name, one in for_choice.items()}
        conditions = AllConditions(Condition(some, parts.part), parts.note, at)
        out = choose(conditions, [ROBUSTNESS], HALF, tune_on(some), tune_on, search)
        assert out.mixed is not None
        rules = [out.clean.winner, out.mixed.winner]
        said += [f"{one.name} at {one.rule.threshold:.3f}" for one in rules]
        for name, where in for_proof.items():
            for place, one in enumerate(rules):
                pooled = where.under(one.pool) if one.pool else where
                votes = votes_of(one.rule, pooled.take(~inside))
                answers[name][place][0][~inside] = votes.prob
                answers[name][place][1][~inside] = votes.pred
    return Proof(rows, kept_out, seen, answers, half, said)


def lines_of(proofs: Sequence[Proof], replicates_seed: int = 0) -> list[list[str]]:
    """Return a line a seed and condition, and the mean over seeds."""
    metric, first = METRICS.get("macro_f1"), proofs[0].rows
    where = [(k, name) for k, proof in enumerate(proofs) for name in proof.answers]
    flat = [answer for k, name in where for answer in proofs[k].answers[name]]
    scores = np.array([score_of(metric, first.label, *answer) for answer in flat]).reshape(-1, 2)
    draws = bootstrap_scores(metric, first.label, flat, first.group, seed=replicates_seed)
    draws = draws.reshape(len(draws), -1, 2)
    lines, means = [], {}
    for k, proof in enumerate(proofs):
        groups = {"clean": [CLEAN], f"mean of {len(proof.levels)} levels": proof.levels}
        groups["kept out"] = [proof.kept_out]
        for title, names in groups.items():
            places = [where.index((k, name)) for name in names]
            own, drawn = scores[places].mean(axis=0), draws[:, places].mean(axis=1)
            areas = np.mean([areas_of(proof, name) for name in names], axis=0)
            means.setdefault(title, []).append((own, drawn, areas))
            shown = f"{title} ({proof.kept_out})" if title == "kept out" else title
            lines.append([str(k), shown, *cells(own, drawn, areas)])
    for title, found in means.items():
        own, drawn, areas = (np.mean([one[i] for one in found], axis=0) for i in range(3))
        lines.append(["all", title, *cells(own, drawn, areas)])
    return lines


def areas_of(proof: Proof, name: str) -> list[float]:
    """Return the AUC of both recipes, the mean over halves, which other rules decided."""
    return [
        float(np.mean([auc(proof.rows.label[proof.half == side], prob[proof.half == side])
                       for side in (0, 1)]))
        for prob, _ in proof.answers[name]
    ]  # fmt: skip


def cells(own: np.ndarray, drawn: np.ndarray, areas: np.ndarray) -> list[str]:
    """Return scores of both, their difference with its interval, and AUCs, as text."""
    low, high = interval(drawn[:, 1] - drawn[:, 0])
    return [
        f"{own[0]:.4f}", f"{own[1]:.4f}", f"{own[1] - own[0]:+.4f} ({low:+.4f} .. {high:+.4f})",
        f"{areas[0]:.4f}", f"{areas[1]:.4f}",
    ]  # fmt: skip


def main() -> None:
    """Print the table, as Markdown."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--scheme", default="sgkf5_s42")
    parser.add_argument("--members", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43, 44])
    parser.add_argument("--proof-seed", type=int, default=43, help="of levels that draw: 43")
    parser.add_argument("--levels", nargs="+", help="default: those of the card")
    flags = parser.parse_args()
    from src.data.pixels.deliveries import CARD

    proofs = []
    for seed in flags.seeds:
        members = [name.replace("%", str(seed)) for name in flags.members]
        levels = flags.levels or list(CARD)
        found = prove(flags.data, flags.scheme, members, levels, seed, flags.proof_seed)
        print(f"seed {seed}: half 0: {found.chosen[0]} | {found.chosen[1]}; "
              f"half 1: {found.chosen[2]} | {found.chosen[3]}", flush=True)  # fmt: skip
        proofs.append(found)
    rows = proofs[0].rows
    print(f"{flags.data}: {len(rows)} rows in {rows.n_groups} groups, each decided by what was "
          "chosen on the other half\n")  # fmt: skip
    head = ["seed", "rows", *(f"macro-F1, {kind}" for kind in KINDS), "difference (95 %)"]
    head += [f"AUC, {kind}" for kind in KINDS]
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for line in lines_of(proofs):
        seed = line[0] if line[0] == "all" else str(flags.seeds[int(line[0])])
        print("| " + " | ".join([seed, *line[1:]]) + " |")


if __name__ == "__main__":
    main()
