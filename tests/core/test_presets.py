from fasterseg_core.config import NUM_CLASSES, DatasetName, ProfileConfig, SearchConfig
from fasterseg_core.operator_specs import space_specs
from fasterseg_core.presets import PAPER, QUICK


def test_the_paper_preset_is_the_defaults_and_the_papers_weights_of_eq_3():
    defaults = {kind: type(config)() for kind, config in PAPER.items()}

    assert PAPER == {**defaults, "search": SearchConfig(granularity_weights=(0.001, 0.997, 0.002))}


def test_both_presets_have_every_kind_of_job():
    assert {kind: type(config) for kind, config in QUICK.items()} == {kind: type(c) for kind, c in PAPER.items()}


def test_the_quick_jobs_fit_each_other():
    profile, search = QUICK["profile"], QUICK["search"]
    assert isinstance(profile, ProfileConfig)
    assert isinstance(search, SearchConfig)

    assert (profile.space, profile.resolution) == (search.space, search.resolution)
    assert {config.resolution for config in QUICK.values()} == {profile.resolution}


def test_the_quick_table_is_small():
    profile = QUICK["profile"]
    assert isinstance(profile, ProfileConfig)

    specs = space_specs(profile.space, profile.resolution, NUM_CLASSES[DatasetName.STREET_SCENES])

    assert len(specs) < 300
