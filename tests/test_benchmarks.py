"""The data that benchmarks are measured on are what their rows say."""

from benchmarks import growth, recipe
from covidtf.images.prepare import load


def test_the_recipes_images_are_as_many_as_it_says(tmp_path, monkeypatch):
    """A tenth of them val, both classes in each split, a batch of test beside them, no two the same."""
    monkeypatch.setattr(recipe, "SIZE", 32)
    recipe.make(tmp_path, 40)
    prepared = load(tmp_path / "prepared")
    counts = prepared.manifest.groupby(["split", "label"]).size()
    assert counts.to_dict() == {
        (split, label): count
        for split, count in (("test", 10), ("train", 18), ("val", 2))
        for label in ("COVID-19", "non-COVID")
    }
    assert len({image.tobytes() for image in prepared.images}) == 60


def test_images_that_grow_in_number_are_all_different(tmp_path):
    """The feature cache would otherwise compute fewer than there are."""
    growth.make(tmp_path, 30)
    files = {(tmp_path / path).read_bytes() for path in growth.table_of(30)["path"]}
    assert len(files) == 30
