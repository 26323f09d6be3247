"""Phantoms: the physics of their X-rays, their anatomy in numbers, and the folder they are written to."""

import functools
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from covidtf import phantom
from covidtf.files import DataError
from covidtf.phantom import FINDINGS, STYLES, thorax, write_xrays
from covidtf.phantom.projection import Aim, aim, attenuation, lung_field, project, ray_sums
from covidtf.phantom.thorax.body import PARTS
from covidtf.phantom.thorax.vessels import grow, radii

COARSE = (5.0, 5.0, 5.0)
STRAIGHT = {"turn": 0.0, "tilt": 0.0, "across": 0.0, "up": 0.0}


@functools.cache
def chest(seed, finding="No Finding", severity=0.6, inspiration=1.0):
    return thorax(seed, finding, severity, inspiration, COARSE)


def middle(mask, axis):
    """Mean coordinate of a mask along an axis, in voxels."""
    return np.argwhere(mask)[:, axis].mean()


def depth_in_chest(volume):
    """Distance from the outer surface of both lungs and what lies between them, mm."""
    padded = np.pad(volume.lungs | (volume.parts == 6), 20)
    closed = ndimage.binary_closing(padded, iterations=15)[20:-20, 20:-20, 20:-20]
    return ndimage.distance_transform_edt(closed, sampling=COARSE)


# Physics


def test_water_slab_attenuates_as_beer_and_lambert_say():
    """Behind 200 mm of water exp(-0.0215 * 200) = 0.013569 of the beam is left; oblique rays go further."""
    mu = attenuation(np.zeros((40, 50, 40)))
    sums = ray_sums(mu, (4, 4, 4), Aim("PA", field=100, **STRAIGHT), 5)
    assert np.exp(-sums[2, 2]) == pytest.approx(0.013569, rel=1e-4)
    assert sums[0, 0] == pytest.approx(4.3 * np.sqrt(1 + (40**2 + 40**2) / 1800**2), rel=1e-5)


@pytest.mark.parametrize(
    ("hu", "mu"), [(-1000, 0.0), (-1024, 0.0), (-500, 0.01075), (0, 0.0215), (1000, 0.0497725)]
)
def test_attenuation_by_hand(hu, mu):
    """Air 0, water 0.0215 / mm, and at 1000 HU 0.0215 * (2 + 0.35 * 0.9)."""
    assert attenuation(np.array([hu]))[0] == pytest.approx(mu, rel=1e-5)


@pytest.mark.parametrize(
    ("view", "plane", "gap", "reach"), [("PA", 2, 28, 1800), ("AP", 2, 208, 1100), ("AP", 42, 48, 1100)]
)
def test_far_planes_are_magnified(view, plane, gap, reach):
    """A block 80 mm wide at a known distance from the detector has a shadow of 80 * reach / (reach - gap)."""
    density = np.zeros((40, 45, 60), np.float32)
    density[:, plane, 20:40] = 1
    shadow = ray_sums(density, (4, 4, 4), Aim(view, field=240, **STRAIGHT), 480)[240]
    assert shadow.sum() / shadow.max() * 0.5 == pytest.approx(80 * reach / (reach - gap), abs=0.6)


@pytest.mark.parametrize(("place", "axis", "moved"), [({"turn": 0.1}, 1, 10.571), ({"tilt": 0.1}, 0, 10.329)])
def test_turn_and_tilt_move_the_front_against_the_back(place, axis, moved):
    """Points 100 mm apart, seen at 0.1 rad, part by about 10 mm: (2 + 5.2) / 0.9311 - (2 - 4.8) / 0.9867."""
    shadows = []
    for plane in (1, 26):
        density = np.zeros((60, 27, 60), np.float32)
        density[30, plane, 30] = 1
        picture = ray_sums(density, (4, 4, 4), Aim("PA", field=200, **(STRAIGHT | place)), 400)
        shadows.append(ndimage.center_of_mass(picture)[axis] / 2)
    assert shadows[1] - shadows[0] == pytest.approx(moved, abs=0.05)


def test_heart_looks_larger_from_the_front():
    """The same heart's shadow is wider in AP: the tube is nearer, the detector behind the back."""
    volume = chest(3)
    heart = (volume.parts == 6).astype(np.float32)
    widths = []
    for view in ("PA", "AP"):
        shadow = ray_sums(heart, volume.spacing, Aim(view, field=400, **STRAIGHT), 200).max(0)
        widths.append((shadow > 5).sum())
    assert widths[1] > 1.04 * widths[0]


@pytest.mark.parametrize("style", STYLES)
def test_picture_shows_dark_lungs_beside_a_bright_middle(style):
    """In every style the outlined lungs are darker than the spine between them, and lie on both sides."""
    volume = chest(4)
    picture, field = (
        draw(volume, 8, "PA", **extra) for draw, extra in ((project, {"style": style}), (lung_field, {}))
    )
    assert picture.dtype == np.uint8 and picture.shape == field.shape == (256, 256)
    assert 0.15 < field.mean() < 0.45
    assert picture[field].mean() + 60 < picture[100:160, 122:134].mean()
    assert min(field[:, :128].mean(), field[:, 128:].mean()) > 0.1


def test_noise_and_position_follow_the_seed():
    """The same seed gives the same picture, another one another position and noise."""
    volume = chest(4)
    assert np.array_equal(project(volume, 1), project(volume, 1))
    assert not np.array_equal(project(volume, 1), project(volume, 2))
    assert aim(volume, 1) != aim(volume, 2)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"view": "L"}, "`view`.*'L'"), ({"style": "Z"}, "`style`.*'Z'")]
)
def test_project_refuses_unknown_words(arguments, message):
    """An unknown view or style is named together with those that exist."""
    with pytest.raises(ValueError, match=message):
        project(chest(4), 1, **arguments)


# Anatomy


@pytest.mark.parametrize("seed", range(6))
def test_tissues_have_their_hounsfield_units(seed):
    """Medians of lung, heart and abdomen, and extremes of air and bone, are what a CT would show."""
    volume = thorax(seed, spacing=(3, 3, 3))
    inner = ndimage.binary_erosion(volume.lungs, iterations=2)
    assert -910 < np.median(volume.hu[inner]) < -780
    assert 20 <= np.median(volume.hu[volume.parts == 6]) <= 60
    assert 0 <= np.median(volume.hu[volume.parts == 7]) <= 70
    assert volume.hu[:, 0].max() == -1000
    assert 700 < volume.hu.max() < 1500
    assert volume.hu.dtype == np.int16 and volume.hu.min() >= -1024


def test_lungs_hold_two_to_seven_litres():
    """Over 20 patients both lungs together measure 2 to 7 litres, the right one more than 45 % of it."""
    for seed in range(20):
        volume = chest(seed)
        litres = volume.lungs.sum() * np.prod(volume.spacing) / 1e6
        right = np.isin(volume.parts, (1, 2, 3)).sum() / volume.lungs.sum()
        assert 2 < litres < 7, seed
        assert 0.45 < right < 0.65, seed


def test_organs_lie_where_they_belong():
    """x grows to the left and z upwards: heart apex left, right dome higher, spine behind, lobes in order."""
    volume = chest(7)
    heart, abdomen = volume.parts == 6, volume.parts == 7
    centre = (volume.hu.shape[2] - 1) / 2
    low = heart.copy()
    low[(volume.hu.shape[0] * 4) // 10 :] = False
    assert middle(low, 2) > centre + 2
    top = np.where(abdomen, np.arange(abdomen.shape[0])[:, None, None], 0).max((0, 1))
    assert top[: int(centre)].max() > top[int(centre) :].max()
    assert middle(volume.hu > 350, 1) > middle(heart, 1)
    assert [PARTS[part] for part in (1, 4)] == ["right upper lobe", "left upper lobe"]
    assert middle(volume.parts == 1, 0) > middle(volume.parts == 2, 0)
    assert middle(volume.parts == 3, 1) > middle(volume.parts == 2, 1)
    assert middle(volume.parts == 4, 0) > middle(volume.parts == 5, 0)
    assert middle(volume.parts == 5, 2) > centre > middle(volume.parts == 3, 2)


def test_breathing_out_makes_the_lungs_smaller_and_denser():
    """At rest the same patient's lungs hold less and absorb more than at full breath."""
    full, rest = chest(5), chest(5, inspiration=0.0)
    assert rest.lungs.sum() < 0.9 * full.lungs.sum()
    assert np.median(rest.hu[rest.lungs]) > np.median(full.hu[full.lungs]) + 40


def test_a_seed_is_a_patient():
    """The same seed gives the same voxels, another one another patient; a finding changes no bone."""
    again, other = thorax(5, spacing=COARSE), thorax(6, spacing=COARSE)
    assert np.array_equal(again.hu, chest(5).hu) and again.patient == chest(5).patient
    assert other.patient != again.patient
    ill = chest(5, "COVID-19")
    bone = (again.hu > 300) & (again.parts == 0) & ~ndimage.binary_dilation(again.lungs, iterations=2)
    assert bone.sum() > 1000 and np.array_equal(ill.hu[bone], again.hu[bone])


def test_vessels_taper_from_the_hilum():
    """A tree reaches all targets from its root, and every branch is at most as thick as its parent."""
    targets = np.random.default_rng(0).uniform(10, 90, (60, 3))
    nodes, parent = grow(targets, np.zeros(3))
    thick = radii(parent, twig=1)
    assert np.array_equal(nodes[0], np.zeros(3))
    assert all(np.abs(nodes - target).sum(1).min() < 1e-9 for target in targets)
    assert (thick[1:] <= thick[parent[1:]]).all()
    leaves = len(set(range(len(nodes))) - set(parent))
    assert thick[0] == pytest.approx(leaves ** (1 / 2.7)) and leaves > 15


# Findings


def test_covid_is_bilateral_peripheral_low_ground_glass():
    """In both lungs, nearer to the pleura and lower than lung is on average, at -750 to -250 HU."""
    for seed in range(6):
        volume = chest(seed, "COVID-19", 0.7)
        lesion, lungs = volume.lesion, volume.lungs
        left = np.arange(lesion.shape[2]) > (lesion.shape[2] - 1) / 2
        assert 0.15 < lesion[:, :, left].sum() / lesion.sum() < 0.85
        depth = depth_in_chest(volume)
        assert depth[lesion].mean() < 0.7 * depth[lungs].mean()
        assert middle(lesion, 0) < middle(lungs, 0)
        assert -750 < np.median(volume.hu[lesion]) < -250
        assert 0.03 < lesion.sum() / lungs.sum() < 0.6


def test_consolidation_stays_in_one_lobe():
    """Over 8 patients the consolidation lies in one lobe, and most of it is as dense as soft tissue."""
    lobes = set()
    for seed in range(8):
        volume = chest(seed, "Lobar pneumonia", 0.7)
        found = np.unique(volume.parts[volume.lesion])
        assert len(found) == 1 and 1 <= found[0] <= 5
        dense = volume.hu[volume.lesion]
        assert (dense > -400).mean() > 0.6 and 0 < np.percentile(dense, 95) < 120
        lobes.add(int(found[0]))
    assert len(lobes) > 2


@pytest.mark.parametrize(
    ("finding", "low", "high"), [("Pleural effusion", -80, 60), ("Pneumothorax", -1000, -800)]
)
def test_pleural_findings_take_the_place_of_lung_on_one_side(finding, low, high):
    """Fluid or air lies in one half of the chest, outside the lungs' mask, with its own Hounsfield units."""
    volume, healthy = chest(9, finding), chest(9)
    left = np.argwhere(volume.lesion)[:, 2] > (volume.hu.shape[2] - 1) / 2
    assert left.all() or not left.any()
    assert not (volume.lungs & volume.lesion).any()
    assert volume.lungs.sum() + volume.lesion.sum() == healthy.lungs.sum()
    assert low <= np.median(volume.hu[volume.lesion]) <= high


def test_effusion_is_low_and_pneumothorax_high():
    """Fluid sinks below the middle of its lung, air rises above it."""
    fluid, air, lungs = chest(9, "Pleural effusion").lesion, chest(9, "Pneumothorax").lesion, chest(9).lungs
    assert middle(fluid, 0) < middle(lungs, 0) - 3
    assert middle(air, 0) > middle(lungs, 0) - 1


def test_edema_is_central_and_covid_peripheral():
    """Haze around the hila lies deeper in the lungs than ground glass under the pleura."""
    depth = depth_in_chest(chest(2))
    covid, edema = (depth[chest(2, finding, 0.8).lesion].mean() for finding in ("COVID-19", "Edema"))
    assert edema > 1.8 * covid


def test_nodules_are_small_and_cardiomegaly_is_a_wider_heart():
    """One to three nodules of at most 16 mm radius; an enlarged heart is at least 10 % wider."""
    for seed in range(4):
        nodules = thorax(seed, "Nodule", 0.8, spacing=(2.5, 2.5, 2.5))
        _, count = ndimage.label(nodules.lesion)
        assert 1 <= count <= 3
        assert nodules.lesion.sum() * 2.5**3 < 3 * 4 / 3 * np.pi * 17**3
    widths = [
        np.ptp(np.flatnonzero((chest(1, finding).parts == 6).any((0, 1))))
        for finding in ("No Finding", "Cardiomegaly")
    ]
    assert widths[1] > 1.1 * widths[0]


@pytest.mark.parametrize("finding", [finding for finding in FINDINGS if finding != "No Finding"])
def test_follow_up_shows_the_same_lesion_in_another_severity(finding):
    """More severe means larger, and the mild lesion lies nearly whole within the severe one."""
    mild, severe = (chest(11, finding, severity).lesion for severity in (0.35, 0.9))
    assert 0 < mild.sum() < severe.sum()
    assert (mild & severe).sum() > 0.85 * mild.sum()


def test_no_finding_has_no_lesion():
    """A healthy phantom has an empty lesion mask and severity 0."""
    assert not chest(1).lesion.any()
    assert chest(1).severity == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"finding": "Flu"}, "`finding`.*'Flu'"),
        ({"finding": "Nodule", "severity": 1.5}, "`severity`.*1.5"),
        ({"inspiration": -1}, "`inspiration`.*-1"),
    ],
)
def test_thorax_refuses_bad_arguments(arguments, message):
    """Unknown findings and numbers out of range are named with what was wanted."""
    with pytest.raises(ValueError, match=message):
        thorax(1, **arguments)


# The folder


@pytest.fixture
def quick(monkeypatch):
    """Phantoms with large voxels, for tests about files and tables."""
    monkeypatch.setattr(phantom, "thorax", functools.partial(thorax, spacing=(8.0, 8.0, 8.0)))


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_bytes_do_not_depend_on_the_number_of_processes(tmp_path):
    """One process and two write the same bytes, nothing but the table, the settings, images and masks."""
    for workers in (1, 2):
        write_xrays(tmp_path / str(workers), 3, 1, seed=4, size=64, masks=True, workers=workers)
    written = contents(tmp_path / "1")
    assert written == contents(tmp_path / "2")
    names = [f"phantom0000{patient}_0.png" for patient in range(3)]
    kinds = [f"{kind}/{name}" for kind in ("images", "masks") for name in names]
    assert sorted(written) == sorted([*kinds, "metadata.csv", "settings.json"])


def test_table_describes_every_image(tmp_path, quick):
    """A third of the patients has COVID-19, a third nothing; a patient's images share all that stays."""
    table = pd.read_csv(write_xrays(tmp_path, 18, 2, seed=1, size=64, workers=1))
    assert list(table) == [
        "filename",
        "patient_id",
        "finding",
        "label",
        "view",
        "style",
        "sex",
        "age",
        "severity",
    ]
    assert len(table) == 36 and table["filename"].is_unique and table["patient_id"].nunique() == 18
    counts = table.drop_duplicates("patient_id")["finding"].value_counts()
    assert counts["COVID-19"] == counts["No Finding"] == 6
    assert set(counts.index) == set(FINDINGS)
    assert (table["label"] == table["finding"].where(table["finding"] == "COVID-19", "non-COVID")).all()
    assert len(table[["patient_id", "finding", "sex", "age"]].drop_duplicates()) == 18
    ill = table[table["finding"] != "No Finding"]
    assert len(ill[["patient_id", "severity"]].drop_duplicates()) > 1.7 * ill["patient_id"].nunique()
    for row in table.itertuples():
        with Image.open(tmp_path / "images" / row.filename) as image:
            assert image.size == (64, 64) and image.mode == "L"


def test_shortcut_changes_the_scanner_and_nothing_else(tmp_path, quick):
    """With it COVID-19 comes from style A and the rest does not; without it no style follows the class."""
    tables = {}
    for shortcut in (False, True):
        path = write_xrays(
            tmp_path / str(shortcut), 60, 1, seed=2, shortcut=shortcut, size=64, masks=True, workers=1
        )
        tables[shortcut] = pd.read_csv(path)
    plain, planted = tables[False], tables[True]
    pd.testing.assert_frame_equal(plain.drop(columns="style"), planted.drop(columns="style"))
    masks = [contents(tmp_path / str(shortcut) / "masks") for shortcut in (False, True)]
    assert masks[0] == masks[1]
    covid = plain["label"] == "COVID-19"
    share = {name: (table["style"] == "A").groupby(covid).mean() for name, table in tables.items()}
    assert share[True][True] > 0.85 and share[True][False] < 0.1
    assert abs(share[False][True] - share[False][False]) < 0.25
    assert set(plain["style"]) == set(STYLES)


def test_complete_folder_is_left_alone(tmp_path, quick):
    """A second call with the same arguments writes nothing."""
    write_xrays(tmp_path, 3, 1, size=64, workers=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write_xrays(tmp_path, 3, 1, size=64, workers=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_half_written_folder_is_made_anew(tmp_path, quick, monkeypatch):
    """A crash leaves no table; the next call, also after a lost image, gives what an unbroken one does."""
    write_xrays(tmp_path / "whole", 4, 1, size=64, workers=1)
    calls = []

    def fail_late(job):
        calls.append(job)
        if len(calls) == 3:
            raise OSError("disk full")
        return write_patient(job)

    write_patient = phantom._write_patient
    monkeypatch.setattr(phantom, "_write_patient", fail_late)
    with pytest.raises(OSError, match="disk full"):
        write_xrays(tmp_path / "broken", 4, 1, size=64, workers=1)
    assert not (tmp_path / "broken" / "metadata.csv").exists()
    monkeypatch.setattr(phantom, "_write_patient", write_patient)
    write_xrays(tmp_path / "broken", 4, 1, size=64, workers=1)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    (tmp_path / "broken" / "images" / "phantom00002_0.png").unlink()
    write_xrays(tmp_path / "broken", 4, 1, size=64, workers=1)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_second_writer_is_refused(tmp_path, quick, monkeypatch):
    """While phantoms are written, another call for the folder is refused by its name and deletes nothing."""
    write_xrays(tmp_path / "alone", 3, 1, size=64, workers=1)
    write_patient, refused = phantom._write_patient, []

    def disturbed(job):
        rows = write_patient(job)
        with pytest.raises(DataError, match=f"{job.folder}: another process is writing phantoms") as error:
            write_xrays(job.folder, 2, 1, seed=9, size=64, workers=1)
        refused.append(error)
        return rows

    monkeypatch.setattr(phantom, "_write_patient", disturbed)
    write_xrays(tmp_path / "busy", 3, 1, size=64, workers=1)
    assert len(refused) == 3
    assert contents(tmp_path / "busy") == contents(tmp_path / "alone")


def test_other_settings_leave_no_image_behind(tmp_path, quick):
    """Made again with fewer patients, the folder holds only what its table lists."""
    write_xrays(tmp_path, 4, 1, size=64, masks=True, workers=1)
    table = pd.read_csv(write_xrays(tmp_path, 2, 1, size=64, workers=1))
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == sorted(table["filename"])
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("settings", [None, '{"kind": "something else"}', "not JSON"])
def test_foreign_folder_is_refused(tmp_path, settings):
    """Images that are not phantoms are never deleted."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_bytes(b"mine")
    if settings is not None:
        (tmp_path / "settings.json").write_text(settings)
    with pytest.raises(DataError, match=r"images|settings\.json"):
        write_xrays(tmp_path, 3, 1, workers=1)
    assert (tmp_path / "images" / "mine.png").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["patients", "images_per_patient", "size", "workers", "seed"])
def test_write_xrays_refuses_numbers_that_are_too_small(tmp_path, name):
    """The message names the argument, its least value and what came."""
    with pytest.raises(ValueError, match=f"`{name}` must be at least .* Received: -1"):
        write_xrays(tmp_path, **{name: -1})
    assert not list(tmp_path.iterdir())
