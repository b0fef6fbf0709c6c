"""Writes `results/TABLES.md` and the plots beside it from the result files; no figure in them is typed by hand."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablation_tables import ablation_sections, groups
from common import ORGANS, RESULTS
from ideas import decoders_table, ideas_table, segmenting_table
from markdown_tables import NOT_RUN, number, spread, table
from protocols import PROTOCOLS
from rows import METHODS, Summary, summaries

from DiffuSAMLib.files import atomic_path

Summaries = Mapping[tuple[str, str], Summary]

CAVEATS = """\
What to know before these figures are compared with others:

- *Resolution*: the shared BTCV and CHAOS volumes have about 256 x 256 pixels in plane, half of the scanners' or less.
  DiffuSAM and all peers see slices of 256 pixels with both neighbours as channels.
- *Backbone*: DiffuSAM-compact, 4 million parameters, pretrained by this project, not Meta's SAM2. In A, B and
  B-reverse it has seen neither BTCV nor CHAOS (procedural abdomens, 40 hippocampus MR, two small automatically
  labelled CT); in C and D it is the bundled one. Every result's JSON names the cases that its weights have seen, and
  scoring one of them is refused.
- *Start*: trainings of DiffuSAM's prior begin with an earlier prior: in A, B and B-reverse one that has seen
  procedural abdomens alone (weights/clean-prior.md), in D the bundled one of the abdomen, as `diffusam train` does.
  In A and B, of 100 slices that it then learns from 60 are of the three CT, 25 of 30 MR-like twins of these, and 15
  of 48 procedural MR; in B-reverse 33 are of procedural CT. The peers begin with random weights and learn from the
  cases alone.
- *MR that is made up*: how bright tissues are in procedural MR was set by looking at 11 CHAOS MR, medians of their
  organs included, and twins are as bright. How bright fat is near the coils, and that livers show vessels, was set by
  looking at these 11 and at the three that are scored, whose fat was taken for liver and spleen. On the labels of the
  11 the exponent was chosen with which MR is shown to priors that know it from procedural abdomens alone, and found
  to be 1 with twins. They are cases of the bundled prior's training, none of which is scored. No weight of A, B or
  B-reverse has seen them, but B is not ignorant of its target as a method of pure domain generalisation would be.
- *Protocol*: 3D Dice over whole volumes, mean over organs, cases and draws, ± standard deviation over draws (over
  cases where there is one draw). Papers mostly crop volumes in z to the organs' true extent; that figure is beside
  it. Files of BTCV end 45 mm beyond the organs.
- *Development cases* were used to choose between variants; the test part was not, and was run once, at the end; then
  once more for an idea in B, which it sent out, and once each for the smoothing and, in B, for the regions, which
  changed nothing more. Of MR it consists of the 11 that the brightness of made-up MR was set by, see above.
- *Peers* were trained on the same volumes with DiffuSAM's own augmentation unless the row says otherwise, for the
  minutes that stand beside them: 20 the decoder on frozen features, as the first row of A and B; 15 the others, as
  DiffuSAM begun with random weights. All go through the same refinement and clean-up, but for two things: of several
  pieces of an organ DiffuSAM keeps the one that lies where it belongs among the others, peers the largest; and peers'
  masks are not smoothed nor their organs kept to regions, so that their rows stand against the row that says so, but
  for the strongest, whose masks were smoothed as well. So do the ablations: each is a change of that row, and so does
  the regression. Peers are re-implementations in the manner of their papers, on this backbone, not the authors' code.
  DPL and DFG adapt to the images of the target cases that are not scored, for a quarter of the time on top; so does
  the adapted backbone for minutes of its own. Points from the truth tell a method in which slices an organ is; the
  compact backbone, pretrained without points, gets them as memories of small discs.
- *Outlines*: DiffuSAM's prior now draws outlines first, with the like of the strongest peer, the decoder on frozen
  features, and diffuses how memories differ from theirs. Before, it generated memories from the features alone. Among
  the ideas a row shows what the diffusion adds to the outlines' own memories: as good as nothing.
- *Steps*: where noise was put on the true latents in training, 50 steps drew a sample of the memories that the
  outlines allow, and 1 or 2 steps came near their mean, which is the better memory (a row among the ideas). Where it
  is put on the prior's own guesses, further steps keep to the first one.
- *Smoothing*: masks spread along the image's edges, in the plane and across slices (the fast global smoother). How
  far, and what counts as an edge, was chosen on the development cases of A (draws 1 and 3), B (1, 2 and 4) and C. A
  third of the one with one and a half of the other came within 0.3 points; weaker brought less, stronger lost in C.
- *Regions*: in a modality that the prior has not learnt from (B, B-reverse), organs are kept to within 30 mm of where
  the training cases have them, seen from the others and in a patient of that size. The 30 mm, and that regions grow
  with the patient, were chosen on the development cases of A and B. The regions were added to the headers of priors
  that were there, by the function that a training calls.
- *3D*: "no 3D" leaves equation 3 out, the chain of memories, as the paper's ablation does, keeps organs to no
  regions, and smooths every slice by itself; the slice's neighbours stay in its outer channels, and the clean-up
  still sees the volume. The paper's slices have neither. The row "every slice alone" has none of it and is smoothed
  within slices; its priors were trained on slices without neighbours, 1372 to 1915 steps, on a backbone pretrained
  with them. The ablations of A and B tell what each part of it is worth, masks not smoothed, organs not kept to
  regions.
- *Three planes*: where they are joined (D), slices are neither chained nor smoothed, so that no 3D would be the same.
  The rows of D made 1782 to 2038 steps in their 20 minutes.
- *Minutes* are few: 15 of one core are about a thousand steps of DiffuSAM, whose slices are encoded once by a frozen
  network, and 192 of a UNet, which then finds the liver alone. With hours on a GPU the peers would stand elsewhere.
  The computers were not all equally fast; the number of steps is in each JSON. That of the first row of A and B made
  1427 to 1770 steps in 20 minutes, for other work shared the cores, that of the smoothed decoder 875 and 882, of the
  one not smoothed 1889 to 1995 on these draws. Trainings of the ablations on draw 1 made 974 to 1603, where
  DiffuSAM's own made 1456: five, ten and one volumes and lambda_seg 0 had fewer (985, 1006, 1257, 974), the
  regression more (1603).
- *nnU-Net was cut*: its smallest recipe trains 250 000 steps of 3D patches, 9 hours on an A100 by its own
  documentation (resenc_presets.md), which is weeks on two CPU cores; cut to the other methods' minutes it would have
  shown a few hundred steps and been no fair peer.
"""


def main_table(found: Summaries) -> str:
    rows = [["*target*", *(f"{p.measure:.2f}" if p.measure else "–" for p in PROTOCOLS.values())]]
    for method, (title, protocols) in METHODS.items():
        cells = [
            "" if name not in protocols else cell(found.get((name, method)), len(protocol.draws))
            for name, protocol in PROTOCOLS.items()
        ]
        rows.append([title, *cells])
    heads = ["mean 3D Dice, whole volumes", *(f"{p.name}: {p.title}" for p in PROTOCOLS.values())]
    return table(heads, rows)


def cell(summary: Summary | None, draws: int) -> str:
    if summary is None:
        return NOT_RUN
    note = f" ({len(summary.units)} of {draws} draws)" if len(summary.units) < draws else ""
    return spread(summary.mean(), summary.deviation()) + note


def protocol_table(found: Summaries, protocol: str) -> str:
    organs = PROTOCOLS[protocol].organs
    heads = ["method", "draws", *organs, "mean ± SD", "NSD 3 mm", "HD95 mm", "Dice, z-cropped", "minutes"]
    rows = []
    for method, title in (*methods_of(protocol), *variants(found, protocol)):
        summary = found.get((protocol, method))
        if summary is None:
            rows.append([title, NOT_RUN, *[""] * (len(heads) - 2)])
            continue
        distance, missed = summary.hd95()
        rows.append(
            [
                title,
                str(len(summary.units)),
                *(spread(summary.mean(organ=organ), summary.deviation(organ=organ)) for organ in organs),
                spread(summary.mean(), summary.deviation()),
                number(summary.mean("surface_dice")),
                number(distance, 1) + (f" ({missed} missed)" if missed else ""),
                number(summary.mean("dice_z_cropped")),
                ", ".join(f"{minutes:g}" for minutes in sorted(summary.minutes)) or "–",
            ]
        )
    return table(heads, rows)


def methods_of(protocol: str) -> list[tuple[str, str]]:
    """The methods of the main table that make sense in a protocol, and their titles."""
    return [(method, title) for method, (title, protocols) in METHODS.items() if protocol in protocols]


def variants(found: Summaries, protocol: str) -> list[tuple[str, str]]:
    """What else was measured: rows that somebody gave a name of their own."""
    known = {*METHODS, *(method for _, method in groups(protocol))}
    return [
        (method, f"`{method}`") for name, method in sorted(found) if name == protocol and method not in known
    ]


def case_table(summary: Summary) -> str:
    organs = summary.organs
    by_organ = {organ: summary.of_cases(organ=organ) for organ in organs}

    def mean(values: list[float]) -> str:
        return number(sum(values) / len(values)) if values else "–"

    rows = [
        [case, *(mean(by_organ[organ].get(case, [])) for organ in organs), mean(values)]
        for case, values in summary.of_cases().items()
    ]
    return table(["case (mean over draws)", *organs, "mean"], rows)


def seen_by_backbone(found: Summaries) -> str:
    """Which cases the backbones of DiffuSAM's rows have seen."""
    rows = []
    for protocol in PROTOCOLS:
        summary = found.get((protocol, "diffusam"))
        if summary is None:
            rows.append([protocol, NOT_RUN])
            continue
        cases: dict[str, int] = {}
        for case in summary.units[0]["record"]["backbone_cases"]:
            cases[case.split("_")[0]] = cases.get(case.split("_")[0], 0) + 1
        text = ", ".join(f"{name} {count}" for name, count in cases.items())
        rows.append([protocol, text or "procedural abdomens only"])
    return table(["protocol", "real cases in the backbone's pretraining"], rows)


def protocol_sections(part: str, folder: Path) -> list[str]:
    found = summaries(part, folder)
    if not found and part == "test":
        return ["## Test cases\n\nNot run.\n"]
    sections = [f"## Main table, {part} cases\n\n{main_table(found)}"]
    if part == "development":
        sections += [CAVEATS, f"## Pretraining data\n\n{seen_by_backbone(found)}"]
    for name, protocol in PROTOCOLS.items():
        heading = f"## Protocol {name}: {protocol.title}, {part} cases"
        text = f"{heading}\n\n{protocol_table(found, name)}"
        own = found.get((name, "diffusam"))
        if own is not None:
            text += f"\nDiffuSAM, case by case (Dice):\n\n{case_table(own)}"
        sections.append(text)
    if part == "development":
        sections += ablation_sections(found)
    return sections


def backbone_quality(result: dict[str, Any]) -> str:
    rows = [
        [data, kind, *(number(dice[organ]) for organ in ORGANS), number(dice["mean"])]
        for data, kinds in result["dice"].items()
        for kind, dice in kinds.items()
    ]
    return table(["development cases", "memory of", *ORGANS, "mean"], rows)


PRIOR_VARIANTS = {"3d": "equation 3", "no_3d": "no 3D", "not_refined": "outlines not refined"}


def prior_scores(result: dict[str, Any]) -> str:
    rows = []
    for data, variants in result["sets"].items():
        for variant, scores in variants.items():
            summary = scores["summary"]
            rows.append(
                [
                    data,
                    PRIOR_VARIANTS[variant],
                    *(number(summary[organ]["dice"]) for organ in ORGANS),
                    f"{number(summary['mean']['dice'])} ± {number(scores['dice_deviation'])}",
                    number(summary["mean"]["surface_dice"]),
                    number(summary["mean"]["hd95_mm"], 1),
                    number(summary["mean"]["dice_z_cropped"]),
                ]
            )
    heads = [
        "development cases",
        "variant",
        *ORGANS,
        "mean Dice ± SD",
        "NSD 3 mm",
        "HD95 mm",
        "Dice, z-cropped",
    ]
    return table(heads, rows)


def speed(result: dict[str, Any]) -> str:
    rows = [
        [
            name,
            str(run["slices"]),
            number(run["volume_seconds"], 1),
            number(run["encode_seconds"], 1),
            number(run["ratio"], 2),
            number(run["peak_memory_mb"], 0),
        ]
        for name, run in result["runs"].items()
    ]
    return table(["volume", "slices", "volume s", "encode_image s", "ratio", "peak MB"], rows)


def demo_seeds(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{seed} (demo)" if int(seed) == result["demo_seed"] else seed,
            *(number(scores[organ]) for organ in ORGANS),
            number(sum(scores.values()) / len(scores)),
        ]
        for seed, scores in result["seeds"].items()
    ]
    rows.append(["**mean**", *[""] * len(ORGANS), number(result["mean"])])
    return table(["seed", *ORGANS, "mean Dice"], rows)


def mr_exponent(result: dict[str, Any]) -> str:
    exponents = sorted({exponent for run in result["runs"] for exponent in run["dice"]}, key=float)
    rows = []
    for run in result["runs"]:
        means = [run["dice"].get(exponent, {}).get("mean") for exponent in exponents]
        rows.append([run["title"], *("not run" if mean is None else number(mean) for mean in means)])
    return table(["mean Dice of", *(f"exponent {exponent}" for exponent in exponents)], rows)


def training_speed(result: dict[str, Any]) -> str:
    seconds = result["seconds"]
    rows = [[name, number(value, 2)] for name, value in seconds.items()]
    rows += [
        ["ratio of an iteration to prior and decoder", number(result["ratio"], 2)],
        ["iterations", str(result["iterations"])],
        ["loss at first", number(result["loss_at_first"], 2)],
        ["loss at last", number(result["loss_at_last"], 2)],
        ["peak MB", number(result["peak_memory_mb"], 0)],
    ]
    return table([f"batch of {result['batch']} slices, {result['image_size']} px", "seconds"], rows)


SECTIONS = {
    "ideas": ("Ideas tried, priors trained for equal times", ideas_table),
    "segmenting_ideas": ("Ideas of segmenting, tried on priors as they are: none is kept", segmenting_table),
    "decoder_ideas": ("The peer that is a decoder on frozen features: what makes it good", decoders_table),
    "mr_exponent": ("How dark MR is shown: 11 CHAOS MR that no benchmark scores", mr_exponent),
    "backbone_quality": ("Compact backbone: how well it carries a mask (Dice)", backbone_quality),
    "bundled_prior": ("Bundled prior on the development cases (whole volumes)", prior_scores),
    "demo_seeds": ("Bundled prior on procedural abdomens that no training saw", demo_seeds),
    "speed_compact": ("Time and memory, compact backbone, 2 cores", speed),
    "speed_sam21_tiny": ("Time and memory, SAM2.1 tiny at 512 px, random weights, 2 cores", speed),
    "training_speed_compact": ("An iteration of training, compact backbone", training_speed),
    "training_speed_sam21_tiny": (
        "An iteration of training, SAM2.1 tiny at 512 px, random weights",
        training_speed,
    ),
}


def write_tables(folder: Path) -> Path:
    """Writes `TABLES.md` from the JSON files of a results folder."""
    parts = ["# Measured figures\n\nMade by `make tables` from the JSON files beside it.\n"]
    for part in ("development", "test"):
        parts += protocol_sections(part, folder)
    for name, (title, render) in SECTIONS.items():
        path = folder / f"{name}.json"
        if path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
            note = f"\n{result['note']}\n" if result.get("note") else ""
            parts.append(f"## {title}\n\n`{result['command']}`\n{note}\n{render(result)}")
        else:
            parts.append(f"## {title}\n\nNot run.\n")
    target = folder / "TABLES.md"
    with atomic_path(target) as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder (default: the benchmarks' own)")
    arguments = parser.parse_args()
    print(write_tables(arguments.results))
    from plots import write_plots

    for path in write_plots(arguments.results):
        print(path)


if __name__ == "__main__":
    main()
