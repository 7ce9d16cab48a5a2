"""The table of what mergers do, made from evaluation records."""

from __future__ import annotations

from hafabench.reporting.merger_facts import merger_rows
from tools.synthetic_records import evaluation, frame_of


def facts(index: float, shift: float) -> list[dict]:
    return [
        {"stage": 2, "merger": "laa", "mean_shift": shift},
        {"stage": 4, "merger": "sia", "adjusted_rand_index": index, "window_pairs": 0.5},
    ]


def test_the_table_has_means_over_seeds_before_and_after(tmp_path):
    def record(seed: int, index: float):
        mergers = {"images": 8, "before": facts(0.1, 0.0), "after": facts(index, 0.25)}
        return evaluation("classification", "pvt_tiny_hafa", seed, {"top1": 90.0, "top5": 99.0}, mergers=mergers)

    frame = frame_of(
        tmp_path, record(0, 0.4), record(1, 0.6), evaluation("classification", "pvt_tiny", 0, {"top1": 1.0})
    )
    rows = [row.fields for row in merger_rows(frame, ["pvt_tiny", "pvt_tiny_hafa"])]
    place = ("classification", "pvt_tiny_hafa")
    assert rows == [
        (*place, "2", "LAA: mean shift", "2", "0.000 ± 0.000", "0.250 ± 0.000"),
        (*place, "4", "SIA: adjusted Rand index", "2", "0.100 ± 0.000", "0.500 ± 0.141"),
        (*place, "4", "SIA: window pairs in one cluster", "2", "50.0 ± 0.0 %", "50.0 ± 0.0 %"),
    ]


def test_seeds_without_a_measurement_before_the_training_are_counted(tmp_path):
    known = {"images": 8, "before": facts(0.1, 0.0), "after": facts(0.5, 0.25)}
    unknown = {"images": 8, "after": facts(0.7, 0.25), "no_before": "the file does not exist"}

    def table(*seeds: dict) -> list[tuple[str, ...]]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        records = [
            evaluation("segmentation", "pvt_tiny_hafa", seed, {"miou": 40.0}, mergers=mergers)
            for seed, mergers in enumerate(seeds)
        ]
        return [row.fields[4:] for row in merger_rows(frame_of(folder, *records), ["pvt_tiny_hafa"])]

    assert table(known, unknown)[1] == ("2", "0.100 (1 of 2 seeds)", "0.600 ± 0.141")
    assert table(unknown)[1] == ("1", "not measured", "0.700")


def test_records_of_earlier_versions_have_no_rows(tmp_path):
    frame = frame_of(tmp_path, evaluation("classification", "pvt_tiny_hafa", 0, {"top1": 1.0}))
    assert merger_rows(frame, ["pvt_tiny_hafa"]) == []
